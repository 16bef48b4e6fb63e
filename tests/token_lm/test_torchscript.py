"""A scripted net is all that is needed: torch alone reads it, from Python and from C++, and gives the same numbers."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import KINDS, VOCABULARY, small, some_ids
from places import FIXTURES

from wavmill.model.token_lm.generate import Sampling, generate
from wavmill.model.token_lm.samout import SamOut

every_kind = pytest.mark.parametrize("kind", KINDS)
LENGTHS = [9, 4, 1]
ALONE = """
import sys
import torch

for name in ("model", "pipeline", "cluster"):
    sys.modules[name] = None  # importing it is an error
for path in sys.argv[1:]:
    net, given = torch.jit.load(path), torch.load(path + ".given")
    with torch.no_grad():
        logits, state = net.prefill(given["ids"], given["lengths"])
        then, state = net.step(given["more"], state)
        last, state = net.step(given["more"][:, :1], state)
    torch.save([logits, then, last, *state], path + ".made")
"""


def given_to() -> dict[str, torch.Tensor]:
    """Prompts of different length, padded, and what follows them."""
    ids = some_ids(0, len(LENGTHS), max(LENGTHS))
    for row, length in zip(ids, LENGTHS, strict=True):
        row[length:] = 0
    return {"ids": ids, "lengths": torch.tensor(LENGTHS), "more": some_ids(1, len(LENGTHS), 7)}


def net_of(kind: str) -> SamOut:
    return small(kind, torch.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    """A scripted net of every kind, as a file."""
    folder = tmp_path_factory.mktemp("scripted")
    for kind in KINDS:
        torch.jit.script(net_of(kind)).save(folder / f"{kind}.pt")
    return {kind: folder / f"{kind}.pt" for kind in KINDS}


@pytest.fixture(scope="module")
def made_alone(saved) -> dict[str, list[torch.Tensor]]:
    """What each net gives in a process that has torch and nothing of ours."""
    for path in saved.values():
        torch.save(given_to(), f"{path}.given")
    folder = next(iter(saved.values())).parent
    subprocess.run([sys.executable, "-I", "-c", ALONE, *map(str, saved.values())], check=True, cwd=folder, timeout=300)
    return {kind: torch.load(f"{path}.made") for kind, path in saved.items()}


@torch.no_grad()
@every_kind
def test_torch_alone_gives_the_same_to_the_last_bit(kind, made_alone):
    net, given = net_of(kind), given_to()
    logits, state = net.prefill(given["ids"], given["lengths"])
    then, state = net.step(given["more"], state)
    last, state = net.step(given["more"][:, :1], state)
    for found, right in zip(made_alone[kind], [logits, then, last, *state], strict=True):
        assert torch.equal(found, right)


@every_kind
def test_generation_takes_a_scripted_net_as_well(kind, saved):
    prompts = [row[:length].numpy() for row, length in zip(given_to()["ids"], LENGTHS, strict=True)]
    asked = prompts, Sampling(max_tokens=20), np.arange(VOCABULARY) >= 4, [2]
    scripted = torch.jit.load(saved[kind])
    for found, right in zip(generate(scripted, *asked), generate(net_of(kind), *asked), strict=True):
        assert found.tolist() == right.tolist()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """generate.cpp, compiled against the torch that is installed."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C++ compiler here (neither c++ nor g++)")
    from torch.utils.cpp_extension import include_paths, library_paths

    program = tmp_path_factory.mktemp("compiled") / "generate"
    options = ["-std=c++20", "-w", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    options += [f"-I{path}" for path in include_paths()]
    libraries = [word for path in library_paths() for word in (f"-L{path}", f"-Wl,-rpath,{path}")]
    libraries += ["-Wl,--allow-shlib-undefined", "-ltorch", "-ltorch_cpu", "-lc10"]
    source = str(FIXTURES / "generate.cpp")
    subprocess.run([compiler, *options, source, "-o", program, *libraries], check=True, timeout=600)
    return program


@every_kind
def test_a_program_in_cpp_says_the_same_tokens(kind, saved, compiled):
    prompt = given_to()["ids"][0].tolist()
    words = [compiled, saved[kind], "20", *map(str, prompt)]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=300).stdout
    greedy = Sampling(temperature=0, max_tokens=20)
    [right] = generate(net_of(kind), [np.array(prompt)], greedy, np.ones(VOCABULARY, bool), [])
    assert [*map(int, said.split())] == right.tolist()
