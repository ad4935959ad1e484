"""The scaler that acts: looks at real pools, asks the policies, and tells a driver."""
