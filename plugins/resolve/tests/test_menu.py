import http.client
import json
import os
import threading
import time
import unittest

import paths  # noqa: F401
import stand_in
from programs import WithPrograms
from motionclone_resolve import menu, preferences
from motionclone_resolve.form import Form
from motionclone_resolve.timeline import Timeline


class Browser:
    """What the page does, without a browser."""

    def __init__(self):
        self.cookie = ""
        self.opened = threading.Event()

    def open(self, address):
        self.host, _, rest = address[len("http://"):].partition("/")
        self.entrance = "/" + rest
        self.opened.set()
        return True

    def request(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection(self.host, timeout=10)
        headers = {"Cookie": self.cookie, "Origin": f"http://{self.host}", **headers}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        found = answer.status, answer.read(), answer.getheader("Set-Cookie") or ""
        connection.close()
        return found

    def enter(self):
        self.opened.wait(10)
        status, _, cookie = self.request("GET", self.entrance)
        self.cookie = cookie.split(";")[0]
        return status

    def state(self):
        return json.loads(self.request("GET", "/state")[1])

    def wait_for(self, wanted):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            state = self.state()
            if wanted(state):
                return state
            time.sleep(0.02)
        raise AssertionError(f"the page still shows {state}")

    def submit(self, fields):
        return self.request("POST", "/submit", json.dumps(fields))[0]


class Pages(unittest.TestCase):
    def setUp(self):
        self.browser = Browser()
        self.form = Form(opener=self.browser.open, closing_grace=0.2)
        self.addCleanup(self.form.close)

    def test_the_address_works_once_and_only_with_its_token(self):
        entrance = self.browser.entrance
        self.browser.entrance = "/?token=guessed"
        self.assertEqual(self.browser.enter(), 403)
        self.browser.entrance = entrance
        self.assertEqual(self.browser.request("GET", "/")[0], 403)
        self.assertEqual(self.browser.enter(), 303)
        status, page, _ = self.browser.request("GET", "/")
        self.assertEqual((status, page[:15]), (200, b"<!doctype html>"))
        self.assertEqual(Browser.enter(self.browser), 403)

    def test_others_are_refused(self):
        self.browser.enter()
        self.assertTrue(self.form._server.server_address[0] == "127.0.0.1")
        self.assertEqual(self.browser.request("GET", "/state", Host="evil.example")[0], 403)
        self.assertEqual(self.browser.request("POST", "/submit", "{}", Origin="http://evil.example")[0], 403)
        self.assertEqual(self.browser.request("GET", "/state", Cookie="motionclone=guessed")[0], 403)
        self.assertEqual(self.browser.request("GET", "/state", Cookie="motionclone=\xe9;=;,")[0], 403)
        self.assertEqual(self.browser.request("POST", "/submit", "[1]")[0], 400)
        self.assertEqual(self.browser.request("POST", "/submit", "no form")[0], 400)
        self.assertEqual(self.browser.request("POST", "/submit", **{"Content-Length": "-5"})[0], 413)
        self.assertEqual(self.browser.request("GET", "/../form.py")[0], 404)
        self.assertEqual(self.browser.request("GET", "/state")[0], 200)
        self.assertIsNone(self.form._submitted)

    def test_a_closed_page_ends_the_wait_and_a_reloaded_one_does_not(self):
        self.browser.enter()
        self.browser.request("POST", "/leave", "{}")
        self.browser.state()
        threading.Timer(0.5, self.browser.submit, [{"prompt": "x"}]).start()
        self.assertEqual(self.form.answer(), {"prompt": "x"})
        self.browser.request("POST", "/leave", "{}")
        self.assertIsNone(self.form.answer())

    def test_a_second_click_starts_nothing(self):
        self.browser.enter()
        self.browser.submit({"prompt": "first"})
        self.browser.submit({"prompt": "second"})
        self.assertEqual(self.form.answer(), {"prompt": "first"})
        self.assertIsNone(self.form._submitted)


class Menu(WithPrograms):
    def setUp(self):
        super().setUp()
        self.timeline = stand_in.Timeline()
        media = stand_in.Media(self.at("shot.mp4"), 25.0)
        for number, start in enumerate((90000, 90100, 90200)):
            item = stand_in.Item(f"shot {number + 1}", media, start, 50, colour="Orange" if number < 2 else "")
            self.timeline.tracks[0][1].append(item)
        self.timeline.current = self.timeline.tracks[0][1][0]
        self.resolve = stand_in.Resolve(self.timeline)

    def start(self, resolve="given", **options):
        self.browser = Browser()
        form = Form(opener=self.browser.open, closing_grace=0.2)
        read = lambda resolve: Timeline(resolve, attempts=2, wait=0.01)  # noqa: E731
        resolve = self.resolve if resolve == "given" else resolve
        self.script = threading.Thread(target=menu.main, args=(resolve, form), kwargs={"read": read, **options}, daemon=True)
        self.script.start()
        self.addCleanup(self.script.join, 20)
        self.browser.enter()

    def leave(self):
        self.browser.request("POST", "/leave", "{}")
        self.script.join(20)
        self.assertFalse(self.script.is_alive())

    def placed(self):
        return [(name, [(i.start, i.duration) for i in items]) for name, items in self.timeline.tracks[1:]]

    def test_a_clip_is_cloned_and_the_script_ends(self):
        self.start()
        asked = self.browser.wait_for(lambda s: "about" in s)
        self.assertEqual((asked["about"]["clip"], asked["about"]["coloured"]), ("shot 1", 2))
        self.browser.submit(self.fields())
        done = self.browser.wait_for(lambda s: s["state"] == "done")
        self.assertIn("on video track 2", done["done"][0])
        self.script.join(20)
        self.assertFalse(self.script.is_alive())
        self.assertEqual(self.placed(), [("Motion clones", [(90000, 50)])])
        kept = preferences.load()
        self.assertEqual((kept["bundle"], kept["prompt"]), (self.bundle, "Relics on the seabed"))

    def test_all_of_a_colour_are_cloned(self):
        self.start()
        self.browser.wait_for(lambda s: "about" in s)
        self.browser.submit(self.fields(scope="colour"))
        self.browser.wait_for(lambda s: s["state"] == "done")
        self.assertEqual(self.placed(), [("Motion clones", [(90000, 50), (90100, 50)])])
        self.assertEqual(len(os.listdir(self.results)), 2)

    def test_a_plan_changes_nothing(self):
        self.start(dry_run=True)
        self.browser.wait_for(lambda s: "about" in s)
        self.browser.submit(self.fields(scope="colour"))
        plan = "\n".join(self.browser.wait_for(lambda s: "plan" in s)["plan"])
        self.assertIn("shot 2: clone the motion of frames 0 to 49", plan)
        self.assertIn("--prompt=Relics on the seabed", plan)
        self.assertIn("at frame 90100", plan)
        self.leave()
        self.assertEqual(self.placed(), [])
        self.assertFalse(os.path.exists(self.results))
        self.assertFalse(os.path.exists(preferences.data_folder()))
        self.assertFalse(os.path.exists(self.program + ".words"))

    def test_a_problem_is_shown_and_can_be_put_right(self):
        self.start()
        self.browser.wait_for(lambda s: "about" in s)
        for changes, said in [
            ({"prompt": "fail"}, "motionclone failed: the bundle is broken."),
            ({"seed": "-1"}, "The seed is '-1'"),
            ({"strength": "nan"}, "motion strength"),
            ({"size": "huge"}, "The size is 'huge'"),
            ({"frames": "1"}, "number of frames"),
            ({"quality": "perfect"}, "quality"),
            ({"bundle": "nowhere"}, "nowhere"),
            ({"scope": "all"}, "clip colour"),
            ({"program": "nul\0"}, "null character"),
        ]:
            self.browser.submit(self.fields(**changes))
            state = self.browser.wait_for(lambda s: said in s.get("text", ""))
            self.assertTrue(state["failed"] and state["state"] == "ask")
        self.assertEqual(self.placed(), [])
        self.browser.submit(self.fields())
        self.browser.wait_for(lambda s: s["state"] == "done")

    def test_cancel_ends_the_work_and_the_form_comes_back(self):
        self.start()
        self.browser.wait_for(lambda s: "about" in s)
        self.browser.submit(self.fields(prompt="wait"))
        self.browser.wait_for(lambda s: os.path.exists(self.program + ".waiting"))
        self.browser.request("POST", "/cancel")
        self.browser.wait_for(lambda s: "Nothing was changed" in s.get("text", ""))
        self.assertEqual(self.placed(), [])
        self.browser.submit(self.fields())
        self.browser.wait_for(lambda s: s["state"] == "done")

    def test_one_clips_problem_does_not_stop_the_others(self):
        self.timeline.tracks[0][1][0].media = stand_in.Media(self.at("shot.mp4"), 25.0)
        self.start()
        self.browser.wait_for(lambda s: "about" in s)
        self.timeline.tracks[0][1][0].duration = 40
        self.browser.submit(self.fields(scope="colour"))
        state = self.browser.wait_for(lambda s: s.get("failed"))
        self.assertIn("'shot 1' was trimmed", state["text"])
        self.assertIn("shot 2: on video track 2", state["done"][0])
        self.leave()

    def test_problems_with_the_timeline_are_shown_on_the_page(self):
        self.timeline.current = None
        self.start()
        self.assertIn("playhead", self.browser.wait_for(lambda s: s["state"] == "failed")["text"])
        self.script.join(20)
        self.start(resolve=None)
        self.assertIn("No project", self.browser.wait_for(lambda s: s["state"] == "failed")["text"])

    def test_unreadable_preferences_are_as_none(self):
        os.makedirs(preferences.data_folder())
        for text in ("{", "[]", '{"seed": 5, "smooth": "yes"}', "\0"):
            with open(os.path.join(preferences.data_folder(), "resolve.json"), "w") as file:
                file.write(text)
            self.assertEqual(preferences.load()["smooth"], True)
            self.assertEqual(preferences.load()["seed"], "")


if __name__ == "__main__":
    unittest.main()
