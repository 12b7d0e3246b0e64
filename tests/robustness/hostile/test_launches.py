"""Lists of downloads, and where launched processes meet, that are damaged or meant ill."""

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def release(project, monkeypatch):
    (project.root / "release" / "data_lib" / "00_info").mkdir(parents=True)
    monkeypatch.setenv("FOMO_RELEASE", str(project.root / "release"))
    monkeypatch.delenv("FOMO_RELEASE_IMAGES", raising=False)


def listed(*lines):
    """A list of downloads."""
    return lambda p: (p.root / "release" / "download_data.csv").write_text("\n".join(lines) + "\n")


DOWNLOADS = {
    "a file of this machine": (
        listed("file:///etc/EuroSAT.tar"), ["fetch", "eurosat"], 1,
        ["line 1", "no address of a .tar"],
    ),
    "a name that is a way out": (
        listed("https://example.org/..tar"), ["fetch", "eurosat"], 2, ["has no address for EuroSAT"]
    ),
    "a program's address": (
        listed("https://example.org/EuroSAT.sh"), ["fetch", "eurosat"], 1, ["line 1", "EuroSAT.sh"]
    ),
    "an address of nowhere": (
        listed("https://127.0.0.1:9/EuroSAT.tar"), ["fetch", "eurosat"], 2,
        ["cannot reach 127.0.0.1", "put it at"],
    ),
    "a host that is none": (
        listed("https://[/EuroSAT.tar"), ["fetch", "eurosat"], 1, ["line 1", "no address of a .tar"]
    ),
    "an address without a host": (
        listed("https:///EuroSAT.tar"), ["fetch", "eurosat"], 1, ["line 1", "no address of a .tar"]
    ),
    "a list that is no text": (
        lambda p: (p.root / "release/download_data.csv").write_bytes(b"\xff\xfe\x00"),
        ["fetch", "eurosat"], 1, ["download_data.csv", "UTF-8"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DOWNLOADS)
def test_a_hostile_list_of_downloads_is_refused_in_a_sentence(ends, case):
    ends(*DOWNLOADS[case])


MACHINES = {
    "an address without a port": ("node01", "is not host:port"),
    "a port above all": ("node01:99999", "is not host:port"),
    "an option": ("--rdzv-conf=x:1", "is not host:port"),
    "an address of a page": ("https://node01:80", "is not host:port"),
}


@pytest.mark.parametrize("case", MACHINES)
def test_a_rendezvous_that_is_none_is_refused(ends, case):
    rendezvous, said = MACHINES[case]
    ends(
        lambda p: p.write(
            "toy", execution={"machines": {"count": 2, "rendezvous": rendezvous}}
        ),
        ["plan", "toy"], 2, ["execution.machines.rendezvous", said],
    )  # fmt: skip


INTERFACES = {
    "several": "eth0,lo",
    "a setting more": "eth0,is_host=1",
    "nothing": "",
    "a line": "a b",
}


@pytest.mark.parametrize("case", INTERFACES)
def test_an_interface_that_is_none_is_refused(ends, case):
    machines = {"count": 2, "rendezvous": "node01:29500", "interface": INTERFACES[case]}
    ends(
        lambda p: p.write("toy", execution={"machines": machines}),
        ["plan", "toy"], 2, ["execution.machines.interface"],
    )  # fmt: skip
