"""Write one HTML page that needs nothing else."""
