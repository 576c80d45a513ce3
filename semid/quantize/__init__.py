"""Vectors and codebooks in; codes out, exactly."""
