"""What `comet_rec` exports: fit, recommend, evaluate, save."""
