"""Images: fetched from registries or archives, verified by digest, unpacked once, shared by containers."""
