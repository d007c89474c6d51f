"""Loss terms as pure functions: tensors in, a dict of named scalar terms out. Weights are the trainer's business."""
