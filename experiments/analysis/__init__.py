"""Turn arrays into numbers and figures; knows no environment and no network."""
