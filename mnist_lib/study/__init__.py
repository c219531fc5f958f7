"""Many runs: recipes x nets x seeds, on this machine or a Dask cluster."""
