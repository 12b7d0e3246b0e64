"""A release that goes live takes over; what was under way ends where it began; nothing is lost."""

import asyncio
import threading
import time

import numpy as np
import pytest

from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.releases.promoting import roll_back
from fomo_dagster.releases.records import ReleaseLog
from fomo_dagster.serving.counters import Counters
from fomo_dagster.serving.engine import IMAGES
from fomo_dagster.serving.limits import RequestError
from fomo_dagster.serving.loaded import MOST_TEXTS, KeptText
from fomo_dagster.serving.releases import ServedReleases
from tests.serving.conftest import SIZE, FunctionLoader, in_base64, picture, release

IMAGE = {"images": [in_base64(picture(1))]}


def served(loader, beside=None):
    return ServedReleases(loader, loader.counters, beside)


def swaps(loader, outcome):
    return f'fomo_swaps_total{{outcome="{outcome}"}} 1.0' in loader.counters.text().decode()


def alive(loaded):
    return loaded.batcher._thread.is_alive()


async def settled(releases):
    """What was let go of is gone."""
    await asyncio.gather(*releases._closing)


def test_a_promotion_and_a_rollback_take_over_at_the_next_look(loader, home):
    async def story():
        releases = served(loader)
        assert releases.live.number == 2
        release(home, 3)
        await releases.look()
        assert (releases.live.number, releases.problem) == (3, None)
        roll_back(loader.log, 1)
        await releases.look()
        assert releases.live.number == 1
        await releases.close()

    asyncio.run(story())
    assert 'fomo_swaps_total{outcome="swapped"} 2.0' in loader.counters.text().decode()


def test_a_look_reads_no_record_where_nothing_happened(loader, monkeypatch):
    async def story():
        releases = served(loader)
        monkeypatch.setattr(ReleaseLog, "read", None)
        await releases.look()
        assert releases.problem is None
        await releases.close()

    asyncio.run(story())


def test_what_is_under_way_ends_on_the_release_that_it_began_with(loader, home):
    async def story():
        releases = served(loader)
        async with releases.use() as old:
            loader.engines[2].held.clear()
            rows = np.ones((1, 3, SIZE, SIZE), np.float32)
            future = old.batcher.submit(IMAGES, rows)
            release(home, 3)
            await releases.look()
            assert releases.live.number == 3
            async with releases.use() as new:
                assert new.number == 3
            assert alive(old)
            loader.engines[2].held.set()
            found = await asyncio.wrap_future(future)
            np.testing.assert_array_equal(found, loader.engines[2].encode(IMAGES, rows))
        await settled(releases)
        assert not alive(old)
        await releases.close()

    asyncio.run(story())


def test_a_release_that_cannot_be_loaded_leaves_the_one_before_with_the_reason(
    loader, home, monkeypatch
):
    async def story():
        releases = served(loader)
        release(home, 3)
        loader.broken.add(3)
        await releases.look()
        assert releases.live.number == 2
        assert "release 3 is live and cannot be loaded (onnxruntime" in releases.problem
        assert releases.problem.endswith("release 2 goes on answering")
        loader.broken.clear()
        await releases.look()
        assert releases.live.number == 2  # not tried again at once
        monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 31)
        await releases.look()
        assert (releases.live.number, releases.problem) == (3, None)
        await releases.close()

    asyncio.run(story())
    assert swaps(loader, "failed")
    assert swaps(loader, "swapped")


def test_a_release_takes_over_once_its_files_are_there(loader, home):
    async def story():
        releases = served(loader)
        release(home, 3)
        loader.missing.add(3)
        await releases.look()
        assert releases.live.number == 2
        assert "the files of release 3 of search (daily, stage 3) are not there" in releases.problem
        loader.missing.clear()
        await releases.look()
        assert (releases.live.number, releases.problem) == (3, None)
        await releases.close()

    asyncio.run(story())


def test_a_log_that_cannot_be_read_leaves_what_was_live(loader, home):
    async def story():
        releases = served(loader)
        release(home, 3)
        record = home.root / "releases" / "search" / "000003.json"
        whole = record.read_bytes()
        record.write_bytes(whole[:-20])
        await releases.look()
        assert releases.live.number == 2
        assert "what is live cannot be told (the record" in releases.problem
        record.write_bytes(whole)
        await releases.look()
        assert (releases.live.number, releases.problem) == (3, None)
        await releases.close()

    asyncio.run(story())


def test_one_release_is_kept_beside_the_live_one_and_the_one_before_it_goes(loader, home):
    async def story():
        release(home, 3)
        releases = served(loader, beside=1)
        async with releases.use(1) as first:
            async with releases.use(2) as second:
                assert (first.number, second.number) == (1, 2)
            assert alive(first)
        await settled(releases)
        assert not alive(first)
        async with releases.use(2) as again:
            assert again is second
        with pytest.raises(RequestError, match="search has no release 9") as unknown:
            async with releases.use(9):
                pass
        assert unknown.value.status == 404
        loader.broken.add(1)
        with pytest.raises(RequestError, match="onnxruntime cannot load release 1") as broken:
            async with releases.use(1):
                pass
        assert broken.value.status == 500
        await releases.close()
        assert not alive(second)

    asyncio.run(story())


def loaded_slowly(loader, monkeypatch):
    """The numbers that are loaded from now on, each of which takes a while."""
    numbers, load = [], loader.load

    def slow(number, history):
        numbers.append(number)
        time.sleep(0.05)
        return load(number, history)

    monkeypatch.setattr(loader, "load", slow)
    return numbers


def test_several_who_ask_for_a_release_load_it_once(loader, home, monkeypatch):
    async def story():
        releases = served(loader)
        count = loaded_slowly(loader, monkeypatch)

        async def ask(number):
            async with releases.use(number) as found:
                return found.number

        impatient = asyncio.create_task(ask(1))
        await asyncio.sleep(0.01)
        impatient.cancel()
        assert await asyncio.gather(*(ask(1) for _ in range(5))) == [1] * 5
        assert count == [1]
        await releases.close()

    asyncio.run(story())


@pytest.mark.parametrize("first", ["live", "asked for"])
def test_what_goes_live_while_it_is_asked_for_is_loaded_once(loader, home, monkeypatch, first):
    async def story():
        releases = served(loader)
        release(home, 3)
        releases.history = loader.log.read()
        count = loaded_slowly(loader, monkeypatch)

        async def ask():
            async with releases.use(3) as found:
                return found

        both = [releases.look(), ask()]
        begun = []
        for one in both if first == "live" else both[::-1]:
            begun.append(asyncio.create_task(one))
            await asyncio.sleep(0.02)
        answers = await asyncio.gather(*begun)
        assert releases.live in answers
        assert (releases.live.number, releases._beside, count) == (3, None, [3])
        assert alive(releases.live)
        await releases.close()

    asyncio.run(story())


def test_a_server_that_ends_lets_go_of_what_was_being_loaded(loader, home, monkeypatch):
    async def story():
        releases = served(loader)
        release(home, 3)
        made = []
        load = loader.load

        def slow(number, history):
            time.sleep(0.1)
            made.append(load(number, history))
            return made[-1]

        monkeypatch.setattr(loader, "load", slow)
        monkeypatch.setattr("fomo_dagster.serving.releases.SECONDS_BETWEEN_LOOKS", 0.0)
        releases.start_watching()
        await asyncio.sleep(0.05)
        await releases.close()
        assert [alive(one) for one in made] == [False]

    asyncio.run(story())


def test_kept_features_of_a_text_hold_no_others(serve):
    client = serve()
    client.post("/v1/embed/texts", json={"texts": ["one", "two", "three"]})
    kept = client.served.releases.live.texts["two"].features
    assert kept.base is None


def test_what_is_beside_and_goes_live_is_not_loaded_again(loader, home):
    async def story():
        releases = served(loader, beside=1)
        async with releases.use(1) as first:
            pass
        roll_back(loader.log)
        await releases.look()
        assert releases.live is first
        await releases.close()

    asyncio.run(story())


def test_a_name_without_anything_live_or_without_files_is_refused(tmp_path, loader):
    empty = FunctionLoader(Home(tmp_path / "empty"))
    with pytest.raises(InputError, match="nothing is live as 'search'"):
        served(empty)
    loader.missing.add(2)
    with pytest.raises(InputError, match=r"files of release 2 .*`release.forms: \[onnx\]`"):
        served(loader)


def test_clients_meet_a_swap_and_each_answer_is_one_releases_own(loader, home, serve, monkeypatch):
    """8 clients over two swaps: nothing is lost, and no answer mixes releases."""
    monkeypatch.setattr("fomo_dagster.serving.releases.SECONDS_BETWEEN_LOOKS", 0.02)
    client = serve()
    expected = {
        number: client.post("/v1/embed/images", json={**IMAGE, "release": number}).json()
        for number in (1, 2)
    }
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answers.append(client.post("/v1/embed/images", json=IMAGE))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for back in (1, 2):
        time.sleep(0.15)
        roll_back(loader.log, back)
        end = time.monotonic() + 10
        while client.served.releases.live.number != back and time.monotonic() < end:
            time.sleep(0.01)
    time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["release"] for answer in answers} == {1, 2}
    for answer in answers:
        told = answer.json()
        assert answer.headers["X-Release"] == str(told["release"])
        np.testing.assert_allclose(
            told["embeddings"], expected[told["release"]]["embeddings"], atol=1e-6
        )


def test_features_of_texts_are_dropped_in_the_order_in_which_they_were_asked_for(loader):
    async def story():
        releases = served(loader)
        kept = KeptText(np.zeros(3, np.float32), False)
        for place in range(MOST_TEXTS):
            releases.live.keep(str(place), kept)
        releases.live.keep("0", kept)
        releases.live.keep("new", kept)
        assert len(releases.live.texts) == MOST_TEXTS
        assert "0" in releases.live.texts
        assert "1" not in releases.live.texts
        await releases.close()

    asyncio.run(story())


def test_counters_of_two_servers_in_a_process_are_their_own():
    one, other = Counters(), Counters()
    one.swaps.labels("swapped").inc()
    assert b'outcome="swapped"' in one.text()
    assert b'outcome="swapped"' not in other.text()
