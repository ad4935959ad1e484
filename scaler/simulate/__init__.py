"""The scaler in virtual time: real policies, simulated consumers, other scalers and a clairvoyant bound beside them."""
