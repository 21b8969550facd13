import json
import unittest
from fractions import Fraction

import paths  # noqa: F401
import stand_in
from programs import WithPrograms
from motionclone_resolve.problem import Problem
from motionclone_resolve.rate import frame_rate
from motionclone_resolve.timeline import BIN, TRACK, Timeline, offers


class Rates(unittest.TestCase):
    def test_shown_rates_are_exact_ones(self):
        for shown, exact in [
            ("25", 25), (24.0, 24), ("23.976", Fraction(24000, 1001)), (29.97, Fraction(30000, 1001)),
            ("29.97 DF", Fraction(30000, 1001)), ("59.94", Fraction(60000, 1001)), ("47.952", Fraction(48000, 1001)),
            ("12.5", Fraction(25, 2)), ("119.88", Fraction(120000, 1001)), ("60", 60),
        ]:  # fmt: skip
            self.assertEqual(frame_rate(shown), exact, shown)

    def test_nonsense_is_refused(self):
        for shown in ("", "fast", "0", "-25", "1e9", None, "nan", "1/0"):
            with self.assertRaises(Problem):
                frame_rate(shown)


class Timelines(WithPrograms):
    def setUp(self):
        super().setUp()
        self.timeline = stand_in.Timeline()
        media = stand_in.Media(self.at("shot.mp4"), 50.0)
        self.item = stand_in.Item("shot", media, 90100, 75, left_offset=30)
        self.timeline.tracks[0][1].append(self.item)
        self.timeline.current = self.item
        self.resolve = stand_in.Resolve(self.timeline)
        self.project = self.resolve.manager.project
        self.pool = self.project.pool

    def read(self, **options):
        return Timeline(self.resolve, wait=0.001, **options)

    def result(self, frames=75, rate="25/1", name="result.mov"):
        with open(self.at(name), "w") as file:
            json.dump({"frames": frames, "rate": rate}, file)
        return self.at(name)

    def test_the_stand_in_has_the_traps(self):
        self.assertTrue(hasattr(self.item, "NoSuchMethod"))
        self.assertFalse(offers(self.item, "NoSuchMethod"))
        self.assertTrue(offers(self.item, "GetClipColor"))
        info = {"mediaPoolItem": self.item.media, "startFrame": 0, "endFrame": 9, "trackIndex": 1, "recordFrame": 90100}
        self.item.media.frames = 100
        self.assertEqual(len(self.pool.AppendToTimeline([info])), 1)
        self.assertEqual(self.timeline.tracks[0][1], [self.item])

    def test_source_range_is_that_of_the_trimmed_clip(self):
        clip = self.read().current_clip()
        self.assertEqual((clip.start, clip.duration, clip.end), (90100, 75, 90175))
        self.assertEqual((clip.source.first, clip.source.frames), (60, 150))

    def test_source_range_between_broadcast_rates(self):
        self.timeline.rate = "29.97 DF"
        self.item.media.fps = 23.976
        clip = self.read().current_clip()
        self.assertEqual((clip.source.first, clip.source.frames), (24, 60))

    def shown(self, item):
        """The first frame and the number of frames of the file that a clip shows."""
        self.timeline.current = item
        source = self.read().current_clip().source
        return source.first, source.frames

    def test_subclips_and_trims(self):
        media = stand_in.Media(self.at("shot.mp4"), 25.0, Start="50", End="79")
        # An item is trimmed by 5 frames; newer versions tell the frame itself.
        self.assertEqual(self.shown(stand_in.Item("sub", media, 90000, 8, left_offset=5)), (55, 8))
        for last in (62, 63):
            new = stand_in.NewItem("sub", media, 90000, 8, left_offset=5, first=55, last=last)
            self.assertEqual(self.shown(new), (55, 8))
        media.properties["Start"] = ""
        self.assertEqual(self.shown(stand_in.Item("sub", media, 90000, 8, left_offset=5)), (5, 8))

    def test_changed_speeds(self):
        media = stand_in.Media(self.at("shot.mp4"), 25.0)
        item = lambda first, last: stand_in.NewItem("fast", media, 90000, 50, first=first, last=last)  # noqa: E731
        self.assertEqual(self.shown(item(10, 109)), (10, 100))
        self.assertEqual(self.shown(item(10, 34)), (10, 25))
        with self.assertRaisesRegex(Problem, "backwards.*Render in Place"):
            self.shown(item(109, 10))
        with self.assertRaisesRegex(Problem, "freeze frame"):
            self.shown(item(10, 10))
        # One frame that is shown once is nothing special here.
        self.assertEqual(self.shown(stand_in.NewItem("one", media, 90000, 1, first=7, last=7)), (7, 1))

    def test_stills_are_refused(self):
        open(self.at("still_01.png"), "w").close()
        for media in (
            stand_in.Media(self.at("still_01.png"), 25.0), stand_in.Media(self.at("shot.mp4"), 25.0, Type="Still")
        ):  # fmt: skip
            with self.assertRaisesRegex(Problem, "still picture"):
                self.shown(stand_in.Item("still", media, 90000, 8))

    def test_seconds_of_the_file(self):
        self.item.media.fps = 29.97
        source = self.read().current_clip().source
        self.assertEqual((source.first, source.frames), (36, 90))
        self.assertEqual(source.start, Fraction(36 * 1001, 30000))
        self.assertEqual(source.end, Fraction(251 * 1001, 60000))

    def test_a_current_clip_that_is_none_for_a_while_is_waited_for(self):
        self.timeline.none_answers = 6
        self.assertEqual(self.read().current_clip().name, "shot")
        self.timeline.none_answers = 10**6
        with self.assertRaisesRegex(Problem, "under the playhead"):
            self.read(attempts=3).current_clip()

    def test_nothing_open_is_said(self):
        with self.assertRaisesRegex(Problem, "No project"):
            Timeline(None)
        self.resolve.manager.project = None
        with self.assertRaisesRegex(Problem, "No project"):
            self.read()
        self.resolve.manager.project = stand_in.Project(None)
        with self.assertRaisesRegex(Problem, "No timeline"):
            self.read()

    def test_clips_without_a_file_are_refused(self):
        for media in (None, stand_in.Media("", 25.0), stand_in.Media(self.at("gone_[0001-0100].png"), 25.0)):
            self.item.media = media
            with self.assertRaisesRegex(Problem, "Render in Place"):
                self.read().current_clip()

    def test_clips_of_a_colour_come_in_order_with_those_left_out(self):
        self.item.colour = "Orange"
        media = self.item.media
        early = stand_in.Item("early", media, 90000, 50, colour="Orange")
        title = stand_in.Item("title", None, 90300, 50, colour="Orange")
        other = stand_in.Item("other", media, 90400, 50, colour="Blue")
        self.timeline.tracks.append(("Video 2", [title, early, other]))
        timeline = self.read()
        clips, skipped = timeline.clips_of_colour(timeline.colour_of(timeline.current_clip()))
        self.assertEqual([clip.name for clip in clips], ["early", "shot"])
        self.assertEqual(len(skipped), 1)
        self.assertIn("'title'", skipped[0])

    def test_a_result_lies_above_at_the_same_place_and_length(self):
        for included in (True, False):
            with self.subTest(end_is_included=included):
                self.setUp()
                self.pool.end_is_included = included
                timeline = self.read()
                path = self.result()
                if not included:
                    # A file of exactly this length: the first try is a frame short, and is taken back.
                    self.assertEqual(timeline.add(timeline.current_clip(), path), 2)
                    self.assertEqual([item.duration for item in self.timeline.deleted], [74])
                else:
                    self.assertEqual(timeline.add(timeline.current_clip(), path), 2)
                    self.assertEqual(self.timeline.deleted, [])
                name, items = self.timeline.tracks[1]
                self.assertEqual((name, [(i.start, i.duration) for i in items]), (TRACK, [(90100, 75)]))
                self.assertEqual(self.timeline.tracks[0][1], [self.item])
                self.assertEqual((self.item.start, self.item.duration), (90100, 75))

    def test_results_share_a_track_until_they_would_overlap(self):
        timeline = self.read()
        clip = timeline.current_clip()
        self.assertEqual(timeline.add(clip, self.result()), 2)
        self.assertEqual(timeline.add(clip, self.result()), 3)
        self.item = stand_in.Item("later", self.item.media, 90175, 75)
        self.timeline.current = self.item
        self.assertEqual(timeline.add(timeline.current_clip(), self.result()), 3)
        self.assertEqual([len(items) for _, items in self.timeline.tracks], [1, 1, 2])

    def test_a_users_track_on_top_is_left_alone(self):
        self.timeline.tracks.append(("Titles", []))
        timeline = self.read()
        self.assertEqual(timeline.add(timeline.current_clip(), self.result()), 3)
        self.assertEqual(self.timeline.tracks[1], ("Titles", []))

    def test_the_bin_is_made_once_and_the_users_stays_current(self):
        users = self.pool.AddSubFolder(self.pool.root, "Rushes")
        self.pool.current = users
        timeline = self.read()
        for _ in range(2):
            timeline.add(timeline.current_clip(), self.result())
        self.assertIs(self.pool.current, users)
        self.assertEqual([folder.name for folder in self.pool.root.folders], ["Rushes", BIN])
        self.assertEqual(len(self.pool.root.folders[1].clips), 2)
        self.assertEqual(users.clips, [])

    def test_a_dropped_clip_is_noticed_and_the_new_track_taken_back(self):
        timeline = self.read()
        clip = timeline.current_clip()
        self.item.start = self.timeline.start - 50
        with self.assertRaisesRegex(Problem, "dropped it.*in the bin"):
            timeline.add(clip, self.result())
        self.assertEqual(len(self.timeline.tracks), 1)

    def test_a_length_floored_between_rates_is_noticed(self):
        timeline = self.read()
        with self.assertRaisesRegex(Problem, "62 instead of 75 frames"):
            timeline.add(timeline.current_clip(), self.result(75, "30/1"))
        self.assertEqual(len(self.timeline.tracks), 1)

    def test_a_clip_that_moved_is_followed_and_one_that_was_trimmed_is_not(self):
        timeline = self.read()
        clip = timeline.current_clip()
        self.item.start += 40
        timeline.add(clip, self.result())
        self.assertEqual(self.timeline.tracks[1][1][0].start, 90140)
        self.item.duration -= 1
        with self.assertRaisesRegex(Problem, "trimmed or removed"):
            timeline.add(clip, self.result())

    def test_another_timeline_opened_meanwhile_is_not_written_to(self):
        timeline = self.read()
        clip = timeline.current_clip()
        other = stand_in.Timeline("Other")
        self.project.current = other
        timeline.add(clip, self.result())
        self.assertEqual([len(items) for _, items in other.tracks], [0])
        self.assertEqual(len(self.timeline.tracks[1][1]), 1)
        self.assertIs(self.project.current, other)

    def test_another_project_and_a_failed_import_name_the_file(self):
        timeline = self.read()
        clip = timeline.current_clip()
        self.pool.refuses_import = True
        with self.assertRaisesRegex(Problem, "did not import.*result.mov"):
            timeline.add(clip, self.result())
        self.resolve.manager.project = stand_in.Project(stand_in.Timeline(), "Other film")
        with self.assertRaisesRegex(Problem, "Another project.*result.mov"):
            timeline.add(clip, self.result())


if __name__ == "__main__":
    unittest.main()
