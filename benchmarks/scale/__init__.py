"""What saves and loads of very large checkpoints cost on S3, simulated from what is documented."""
