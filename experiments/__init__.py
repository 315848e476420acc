"""Programs to train, evaluate, film and watch; only this package joins `envs` and `encoders`."""
