"""Small C++ kernels for the CPU, compiled on first use; every one has a torch twin that serves without a compiler."""
