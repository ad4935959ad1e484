"""`/v1/responses`: foreground and background, with streams that can be taken up again anywhere."""
