"""Tasks: rewards and ends of episodes, one file each."""
