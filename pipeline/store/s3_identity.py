"""The S3 credentials in use, for messages: where they were found and the key's ID; no secrets."""

SHOWN = 4  # characters shown at either end of a key's ID


def access_key() -> str:
    """The access key's id, shortened, and where it is from: ``AKIA...WXYZ (env)``."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        found = boto3.Session().get_credentials()
    except BotoCoreError as error:
        return f"without credentials: {error}"
    if found is None:
        return "without credentials"
    return f"as {found.access_key[:SHOWN]}...{found.access_key[-SHOWN:]} ({found.method})"
