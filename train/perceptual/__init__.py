"""Feature distances of the losses and the metrics."""
