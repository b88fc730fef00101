"""What training costs: time, memory, growth."""
