"""What `penstock bench admission` and `interference` run in processes of their own: `python -m consumer.bench`.

`azure_conv.csv` and `azure_code.csv` are the first 4,000 requests (prompt tokens, output tokens) of the traces in
Azure/AzurePublicDataset, CC-BY 4.0; Patel et al., "Splitwise", ISCA 2024.
"""
