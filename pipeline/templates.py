"""Job files to start from: what ``wavmill new KIND`` writes."""

TOKENS = """\
# Tokens of your own sound, with their windows.
#   wavmill plan my.yaml      check it, see what would run
#   wavmill fit my.yaml       learn the codebook
#   wavmill run my.yaml       make the dataset; again = resume
name: my-tokens
source:
  kind: files               # or manifest (JSONL, CSV, Parquet), webdataset (tars), dataset
  path: path/to/sound       # a folder, any depth, or s3://bucket/prefix; a label is the folder a file lies in
clip:
  min_s: 0.1                # shorter is rejected, with a row that says so
  max_s: 30                 # longer is cut into parts
  channel: mean             # or the number of one, from 0
feature:
  kind: mel                 # 80 log-mel bands at 50 Hz; or mfcc: 39 values at 100 Hz, HuBERT's first targets
token:
  kind: kmeans
  codebook: out/codebook    # a folder or s3:// address; 'wavmill fit' puts it there
window:
  kind: fixed
  length_frames: 50         # 1 s of tokens
  stride_frames: 25
  tail: drop                # or pad, with -1
keep: [token, window]       # feature too, if you want it published
fit:
  codes: 100
  frames: 500000            # sampled from the corpus
  seed: 0
store: out                  # a folder or s3://bucket/prefix; the dataset is <store>/<name>/v1
"""

FEATURES = """\
# Features of your own sound, without tokens.
#   wavmill plan my.yaml && wavmill run my.yaml
name: my-features
source:
  kind: files
  path: path/to/sound       # a folder, any depth, or s3://bucket/prefix
feature:
  kind: mfcc                # 39 values at 100 Hz; or mel: 80 log-mel bands at 50 Hz
store: out                  # a folder or s3://bucket/prefix; the dataset is <store>/<name>/v1
"""

TEMPLATES = {"tokens": TOKENS, "features": FEATURES}
