"""What a stack file says, and what the stack serves."""
