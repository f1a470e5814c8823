"""What checkpoints look like on disk, one module for each kind."""
