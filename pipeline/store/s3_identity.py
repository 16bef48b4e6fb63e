"""As whom this process asks S3, for messages: where the SDK found credentials, and which key. No secret is told."""

SHOWN = 4  # characters of a key's id at either end


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
