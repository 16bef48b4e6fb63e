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

UNITS = """\
# HuBERT units of your own speech.
#   wavmill plan my.yaml && wavmill fit my.yaml && wavmill run my.yaml      again = resume
#   wavmill verify my.yaml    makes a sample again, clip by clip in float32
name: my-units
source:
  kind: files
  path: path/to/sound       # a folder, any depth, or s3://bucket/prefix
feature:
  kind: hubert              # or any wav2vec 2.0
  model: facebook/hubert-base-ls960   # a name on the Hugging Face hub, a folder, or s3://folder
  layer: 9                  # the output of block 9, counted from 1 as in fairseq; or last, or several: [6, 9]
token:
  kind: kmeans
  codebook: out/km100       # a folder or s3:// address; 'wavmill fit' puts it there
fit:
  codes: 100
store: out                  # a folder or s3://bucket/prefix; the dataset is <store>/<name>/v1
"""

TALKING = """\
# What MuseTalk trains on, of your own films.
#   wavmill plan my.yaml && wavmill run my.yaml      again = resume
#   wavmill export out/my-talking npy --to musetalk-v1
name: my-talking
source:
  kind: files               # films, or sound with a folder of frames beside it; or faces: v1.5's JSON files
  path: path/to/films       # a folder, any depth, or s3://bucket/prefix
clip:
  max_s: 180                # a longer film is cut into parts of its own, as MuseTalk v1 cuts them
check:
  fps: 25                   # others are rejected; leave it out to take any steady rate
  max_step_gap: 10          # sound and video may be 0.2 s apart in length: MuseTalk's own rule
feature:
  kind: whisper
  model: openai/whisper-tiny    # a name on the Hugging Face hub, a folder, or s3://folder
  states: musetalk-v1       # or musetalk-v1.5: other numbers, which fit no model that was trained on these
window:
  kind: musetalk
  fps: from_video           # or a number, for sound alone
  edge: clamp               # v1: the first and last step are repeated; zero: v1.5; reject: no window
store: out                  # a folder or s3://bucket/prefix; the dataset is <store>/<name>/v1
"""

TRAIN = """\
# A token LM on published tokens.
#   wavmill plan my-train.yaml && wavmill train my-train.yaml      again = resume
name: my-samout
data:                       # one or more datasets with tokens of one codebook
  - from: out/my-tokens     # newest version, or one: out/my-tokens/v1
    label: label            # the text column that is a clip's class, or a carried one (speaker); null: none
    weight: 1               # how often an epoch sees each of its clips
pack:
  layout: prompt            # label before the codes: can be asked for one; suffix: after them, as published
  dedup: false              # collapse repetitions of a code; how long a sound lasts is then lost
  split: {by: source, valid: 0.05}    # no object on both sides; or {by: speaker, hold: [ann, bob]}, nobody is
model:
  kind: samout
  d: 256                    # the published size is d 512, 8 heads, 8 layers: 19 million parameters
  heads: 8
  layers: 6
train:
  batch: 32                 # clips, of all workers together
  lr: 1e-3
  epochs: 20
  patience: 3               # stop after so many validations without a better loss
  from: auto                # goes on from a shorter training of this job; scratch; or a model: out/my-samout/v1
  seed: 0
store: out                  # the model is <store>/<name>/v1
scale:
  workers: auto             # one for each GPU; 0: in this process, without Ray
"""

TEMPLATES = {"tokens": TOKENS, "features": FEATURES, "units": UNITS, "talking": TALKING, "train": TRAIN}
