// Drives the plugin through what hosts do: `host PLUGIN SCENARIO [FOLDER]`. Fails at the first thing that is not as it
// should be. TEST_BUNDLE names a bundle for the scenarios that make clips.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "host.hpp"
#include "page.hpp"

using namespace ofx;
using Instance = std::unique_ptr<Effect>;

static const char* const FILTER = kOfxImageEffectContextFilter;
static const char* const GENERAL = kOfxImageEffectContextGeneral;
static const char* const GENERATOR = kOfxImageEffectContextGenerator;

static std::string bundle() {
    const char* bundle = std::getenv("TEST_BUNDLE");
    CHECK(bundle);
    return bundle;
}

// Where clips are kept: beside the cache, for all scenarios.
static std::string kept() {
    const char* cache = std::getenv("MOTIONCLONE_CACHE");
    return cache ? std::filesystem::path(cache).parent_path() / "kept" : "";
}

static void pause(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

template <class T>
static bool within(int seconds, T done) {
    auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    while (!done()) {
        if (std::chrono::steady_clock::now() > end) return false;
        pause(10);
    }
    return true;
}

static std::string text(Effect& effect, const std::string& name) {
    Guard guard(ofx::lock);
    return effect.parameter(name).value.s;
}
static int number(Effect& effect, const std::string& name) {
    Guard guard(ofx::lock);
    return effect.parameter(name).value.i;
}
static bool says(Effect& effect, const std::string& part) {
    return text(effect, "status").find(part) != std::string::npos;
}

// The quickest clone: 64x64, four frames, as many steps as are asked for.
static void quick(Plugin& plugin, Effect& effect, const std::string& prompt, int steps = 2) {
    plugin.set(effect, "bundle", bundle());
    plugin.set(effect, "device", 1);
    // This host takes parameters from any thread, which the plugin does not know by its name.
    plugin.set(effect, "live", 1);
    plugin.set(effect, "keepFolder", kept());
    plugin.set(effect, "prompt", prompt);
    plugin.set(effect, "width", 64);
    plugin.set(effect, "height", 64);
    plugin.set(effect, "frames", 4);
    plugin.set(effect, "steps", steps);
    plugin.set(effect, "guidanceSteps", steps / 2);
    plugin.set(effect, "warmUp", 0);
    plugin.set(effect, "coolUp", 0);
    CHECK(number(effect, "quality") == 3 && number(effect, "size") == 1);
}

static bool finished(Effect& effect) { return says(effect, "The clip is there"); }

static void generate(Plugin& plugin, Effect& effect) {
    int refresh = number(effect, "refresh");
    plugin.change(effect, "generate");
    if (!within(120, [&] { return finished(effect) && number(effect, "refresh") > refresh; })) {
        std::fprintf(stderr, "status: %s\n", text(effect, "status").c_str());
        std::abort();
    }
}

static bool is_source(Image& image, int time) {
    Image wanted(setup.format, image.bounds, image.bounds, 1);
    for (int y = image.bounds.y1; y < image.bounds.y2; y++)
        for (int x = image.bounds.x1; x < image.bounds.x2; x++)
            for (int channel = 0; channel < setup.format.samples; channel++)
                wanted.put(x, y, channel, setup.pixel(time, x, y, channel));
    return wanted.memory == image.memory;
}

// 8-bit RGB, rows from the top.
static std::vector<uint8_t> rgb(Image& image) {
    std::vector<uint8_t> bytes;
    for (int y = image.bounds.y2 - 1; y >= image.bounds.y1; y--)
        for (int x = image.bounds.x1; x < image.bounds.x2; x++)
            for (int channel = 0; channel < 3; channel++)
                bytes.push_back(uint8_t(std::lround(image.get(x, y, channel) * 255)));
    return bytes;
}

static const std::vector<Format> FORMATS = [] {
    std::vector<Format> formats;
    for (Depth depth : {BYTE, SHORT, HALF, FLOAT})
        for (int samples : {3, 4})
            for (bool bottom_first : {true, false}) formats.push_back({depth, samples, bottom_first, bottom_first ? 0 : 5, true});
    return formats;
}();

// Load, describe, unload, load again; the page of parameters goes to a file.
static void describe(const std::string& file, const std::string& folder) {
    for (int round = 0; round < 3; round++) {
        Plugin plugin(file);
        for (int again = 0; again < 2; again++) {
            plugin.load();
            auto effect = plugin.describe();
            CHECK(effect->properties.count(kOfxImageEffectPropSupportedContexts) == 3);
            CHECK(effect->properties.count(kOfxImageEffectPropSupportedPixelDepths) == 4);
            CHECK(effect->properties.find(kOfxImageEffectPropTemporalClipAccess, 0)->i == 1);
            for (const char* context : {FILTER, GENERAL, GENERATOR}) {
                auto described = plugin.describe(context);
                CHECK(described->clip("Output") && !!described->clip("Source") == (context != GENERATOR));
                CHECK(!!described->clip("Condition") == (context == GENERAL));
                for (auto& parameter : described->parameters) {
                    auto& properties = parameter->properties;
                    CHECK(!properties.text(kOfxPropLabel).empty());
                    if (parameter->type != kOfxParamTypeDouble && parameter->type != kOfxParamTypeInteger) continue;
                    auto value = [&](const char* name) {
                        const Value* found = properties.find(name, 0);
                        CHECK(found);
                        return is_double(*parameter) ? found->d : double(found->i);
                    };
                    double least = value(kOfxParamPropMin), most = value(kOfxParamPropMax);
                    double low = value(kOfxParamPropDisplayMin), high = value(kOfxParamPropDisplayMax);
                    double initial = value(kOfxParamPropDefault);
                    CHECK(least <= low && low < high && high <= most && least <= initial && initial <= most);
                }
                if (context == GENERAL && !folder.empty()) draw_page(*described, folder + "/parameters.svg");
            }
            plugin.unload();
        }
    }
}

// Every parameter is written, by the host and by its user, and buttons are pressed, with nothing set up.
static void parameters(const std::string& file, const std::string&) {
    Plugin plugin(file);
    plugin.load();
    for (const char* context : {FILTER, GENERAL, GENERATOR}) {
        auto effect = plugin.create(context);
        std::vector<std::string> names;
        for (auto& parameter : effect->parameters) names.push_back(parameter->name);
        for (auto& name : names) {
            Parameter& parameter = effect->parameter(name);
            if (parameter.type == kOfxParamTypeInteger || is_double(parameter)) {
                for (const char* end : {kOfxParamPropMin, kOfxParamPropMax, kOfxParamPropDefault}) {
                    const Value& value = *parameter.properties.find(end, 0);
                    plugin.set(*effect, name, is_double(parameter) ? value.d : double(value.i));
                }
            } else if (parameter.type == kOfxParamTypeChoice) {
                int count = parameter.properties.count(kOfxParamPropChoiceOption);
                for (int choice = -1; choice <= count; choice++) plugin.set(*effect, name, choice);
                plugin.set(*effect, name, parameter.properties.find(kOfxParamPropDefault, 0)->i);
            } else if (is_text(parameter)) {
                for (const char* value : {"%s%n", "../../etc/passwd", "\xff\xfe", ""}) plugin.set(*effect, name, value);
            } else {
                plugin.change(*effect, name);
                plugin.change(*effect, name);
            }
            plugin.render(*effect, 3);
        }
        int seed = number(*effect, "seed");
        plugin.change(*effect, "randomise");
        CHECK(number(*effect, "seed") != seed && number(*effect, "seed") >= 0);
        plugin.set(*effect, "mode", 1);
        CHECK(effect->parameter("imageFile").properties.find(kOfxParamPropEnabled, 0)->i == 1);
        // A quarter of the embedded model's steps.
        plugin.set(*effect, "bundle", std::getenv("TEST_BUNDLE"));
        plugin.set(*effect, "quality", 0);
        CHECK(number(*effect, "steps") == 6 && number(*effect, "guidanceSteps") == 4);
        plugin.destroy(effect);
    }
    plugin.unload();
}

// Without a result, the source goes through as it is, whatever its pixels, bounds, scale and window.
static void source(const std::string& file, const std::string&) {
    Plugin plugin(file);
    plugin.load();
    setup.region = {-3, 5, 34, 28};
    // Also colours outside of 0 to 1, and what is no number.
    setup.pixel = [](int time, int x, int y, int channel) {
        return x == 0 ? NAN : float(x * 3 - y + channel + time) / 20 - 0.5f;
    };
    for (const char* context : {FILTER, GENERAL}) {
        auto effect = plugin.create(context);
        for (const Format& format : FORMATS) {
            setup.format = format;
            for (int border : {0, 3, -4})
                for (double scale : {1.0, 0.5}) {
                    setup.border = border;
                    auto image = plugin.render(*effect, 4, scale);
                    CHECK(plugin.was_identity);
                    if (border >= 0) CHECK(is_source(*image, 4));
                    Range window{3, 6, 9, 13};
                    plugin.render(*effect, 2, scale, &window);
                }
        }
        plugin.destroy(effect);
    }
    plugin.unload();
}

// A project as its host keeps it.
using Project = std::map<std::string, Value>;
static Project read_project(const std::string& file) {
    Project saved;
    std::ifstream project(file);
    std::string line;
    while (std::getline(project, line)) {
        std::istringstream words(line);
        std::string name;
        Value value;
        std::getline(words, name, '\t');
        words >> value.i >> value.d;
        words.get();
        std::getline(words, value.s);
        saved[name] = value;
    }
    CHECK(!saved.empty());
    return saved;
}
static void write_project(Effect& effect, const std::string& file) {
    std::ofstream project(file);
    for (auto& parameter : effect.parameters)
        project << parameter->name << '\t' << parameter->value.i << '\t' << parameter->value.d << '\t' << parameter->value.s << '\n';
}

// A clip is made, shown at its times in any order and form, and is what the command line makes.
static void clone(const std::string& file, const std::string& folder) {
    Plugin plugin(file);
    plugin.load();
    setup.pixel = waves;
    auto effect = plugin.create(GENERAL);
    quick(plugin, *effect, "ground", 12);
    CHECK(says(*effect, "Ready"));
    {
        std::ofstream reference(folder + "/reference.rgb", std::ios::binary);
        for (int time = 0; time < 8; time++) {
            auto image = plugin.render(*effect, time);
            CHECK(is_source(*image, time));
            auto bytes = rgb(*image);
            reference.write(reinterpret_cast<char*>(bytes.data()), std::streamsize(bytes.size()));
        }
    }
    int refresh = number(*effect, "refresh");
    auto begin = std::chrono::steady_clock::now();
    plugin.change(*effect, "generate");
    auto took = std::chrono::steady_clock::now() - begin;
    CHECK(took < std::chrono::seconds(2) && counts.progress > 0);
    // Meanwhile the source is there, and renders wait for nothing.
    std::set<std::string> seen;
    CHECK(within(120, [&] {
        seen.insert(text(*effect, "status"));
        return number(*effect, "refresh") > refresh && finished(*effect);
    }));
    CHECK(seen.size() >= 2);
    CHECK(text(*effect, "result").size() == 32 && counts.persistent == 0 && counts.boxes == 0);
    // Frames 0, 2, 4 and 7 of the reference; in disorder, and again.
    std::map<int, std::vector<uint8_t>> frames;
    for (int time : {7, 0, 4, 2, 0, 7}) {
        auto image = plugin.render(*effect, time);
        CHECK(!plugin.was_identity && !is_source(*image, time));
        auto bytes = rgb(*image);
        CHECK(frames.count(time) == 0 || frames[time] == bytes);
        frames[time] = bytes;
    }
    {
        std::ofstream result(folder + "/clone.rgb", std::ios::binary);
        for (auto& [time, bytes] : frames) result.write(reinterpret_cast<char*>(bytes.data()), std::streamsize(bytes.size()));
    }
    // When it is over: held, anew, backwards, stretched; and twice as fast.
    auto shown = [&](double time) { return rgb(*plugin.render(*effect, time)); };
    CHECK(shown(20) == frames[7] && shown(-5) == frames[0]);
    plugin.set(*effect, "length", 1);
    CHECK(shown(10) == frames[0] && shown(7) == frames[7]);
    plugin.set(*effect, "length", 2);
    CHECK(shown(10) == frames[4] && shown(14) == frames[0]);
    plugin.set(*effect, "length", 3);
    CHECK(shown(7) == frames[7] && shown(0) == frames[0]);
    plugin.set(*effect, "length", 0);
    plugin.set(*effect, "speed", 2);
    CHECK(shown(1) == frames[2] && shown(4) == frames[7]);
    plugin.set(*effect, "speed", 1);
    // Every form has the same picture, and windows are parts of it.
    for (const Format& format : FORMATS) {
        setup.format = format;
        auto image = plugin.render(*effect, 4);
        CHECK(rgb(*image) == frames[4]);
        if (format.samples == 4) CHECK(image->get(5, 5, 3) == 1);
        setup.region = {-7, 3, 94, 60};
        auto whole = plugin.render(*effect, 4);
        Range window{10, 9, 33, 41};
        auto part = plugin.render(*effect, 4, 1, &window);
        for (int y = window.y1; y < window.y2; y++)
            for (int x = window.x1; x < window.x2; x++)
                CHECK(std::fabs(part->get(x, y, 1) - whole->get(x, y, 1)) < 0.005);
        auto half = plugin.render(*effect, 4, 0.5);
        // Halves of the picture are as bright as they were; a model of random weights makes too fine a grain for more.
        for (int side : {0, 1}) {
            double small = 0, large = 0;
            for (int y = 2; y < 29; y++)
                for (int x = 22 * side; x < 22 * side + 22; x++) {
                    small += half->get(x, y, 0) / (27 * 22);
                    for (int i = 0; i < 4; i++) large += whole->get(2 * x + i % 2, 2 * y + i / 2, 0) / (4 * 27 * 22);
                }
            CHECK(std::fabs(small - large) < 0.02);
        }
        setup.region = {0, 0, 64, 64};
    }
    setup.format = {};
    // An aborted render touches nothing that is not its own, and the next one is whole.
    setup.abort_after = counts.aborts + 0;
    setup.region = {0, 0, 640, 640};
    plugin.render(*effect, 4);
    setup.abort_after = -1;
    setup.region = {0, 0, 64, 64};
    CHECK(shown(4) == frames[4]);
    // A second instance shows the same clip at once: nothing is computed.
    auto other = plugin.create(FILTER);
    quick(plugin, *other, "ground", 12);
    begin = std::chrono::steady_clock::now();
    generate(plugin, *other);
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(1));
    CHECK(rgb(*plugin.render(*other, 2)) == frames[2]);
    // Another prompt is another clip; the first one stays until it is there.
    plugin.set(*other, "prompt", "sea");
    plugin.change(*other, "generate");
    CHECK(rgb(*plugin.render(*other, 2)) == frames[2] || finished(*other));
    CHECK(within(120, [&] { return finished(*other); }));
    CHECK(rgb(*plugin.render(*other, 2)) != frames[2]);
    CHECK(rgb(*plugin.render(*effect, 2)) == frames[2]);
    // The motion is kept, and cloned from the file.
    std::string motion = folder + "/motion.safetensors";
    plugin.set(*effect, "motionFile", motion);
    plugin.change(*effect, "saveMotion");
    CHECK(std::filesystem::exists(motion));
    plugin.set(*other, "prompt", "ground");
    plugin.set(*other, "motionFile", motion);
    plugin.change(*other, "loadMotion");
    CHECK(says(*other, "4 frames at 64x64") && number(*other, "motionFrom") == 1);
    generate(plugin, *other);
    CHECK(rgb(*plugin.render(*other, 2)) == frames[2]);
    // What the project keeps; the scenario reopen opens it.
    write_project(*effect, folder + "/project.txt");
    plugin.destroy(effect);
    plugin.destroy(other);
    plugin.unload();
}

// The project of the scenario before: with all of its files, with an emptied cache, and with nothing left of the clip.
static void reopen(const std::string& file, const std::string& folder) {
    Project saved = read_project(folder + "/project.txt");
    std::ifstream result(folder + "/clone.rgb", std::ios::binary);
    std::vector<char> wanted((std::istreambuf_iterator<char>(result)), {});
    auto is_wanted = [&](Image& image) {
        auto bytes = rgb(image);
        return std::equal(bytes.begin(), bytes.end(), reinterpret_cast<uint8_t*>(wanted.data()));
    };
    setup.pixel = waves;
    for (bool cached : {true, false}) {
        if (!cached) std::filesystem::remove_all(std::getenv("MOTIONCLONE_CACHE"));
        Plugin plugin(file);
        plugin.load();
        auto effect = plugin.create(GENERAL, saved);
        CHECK(finished(*effect) && is_wanted(*plugin.render(*effect, 0)));
        plugin.destroy(effect);
        plugin.unload();
    }
    std::filesystem::remove_all(std::getenv("MOTIONCLONE_CACHE"));
    std::filesystem::remove_all(kept());
    {
        Plugin plugin(file);
        plugin.load();
        auto effect = plugin.create(GENERAL, saved);
        CHECK(says(*effect, "no longer there"));
        // Somebody looks at it: an error, once, and no picture that could be taken for footage.
        setup.fails = true;
        for (int time : {0, 1, 2}) {
            auto image = plugin.render(*effect, time);
            CHECK(!plugin.was_identity && !is_source(*image, time));
        }
        CHECK(counts.persistent == 1 && counts.last_message.find("no longer there") != std::string::npos);
        // Cancel and a clone that fails do not make the project forget it.
        std::string result = text(*effect, "result");
        plugin.change(*effect, "cancel");
        plugin.set(*effect, "topK", 200);
        plugin.change(*effect, "generate");
        CHECK(within(60, [&] { return says(*effect, "200"); }) && text(*effect, "result") == result);
        plugin.render(*effect, 0);
        // Nobody looks at it, and the parameters are not those of the clip any more.
        setup.interactive = false;
        plugin.render(*effect, 0);
        plugin.change(*effect, "update");
        CHECK(says(*effect, "changed since"));
        plugin.set(*effect, "topK", 1);
        plugin.set(*effect, "whenMissing", 1);
        plugin.render(*effect, 0);
        setup.fails = false;
        plugin.set(*effect, "whenMissing", 2);
        CHECK(is_source(*plugin.render(*effect, 0), 0) && plugin.was_identity);
        plugin.destroy(effect);
        plugin.unload();
    }
    // The same clip is made again where nobody looks, and when it is asked for.
    for (bool batch : {true, false}) {
        std::filesystem::remove_all(std::getenv("MOTIONCLONE_CACHE"));
        std::filesystem::remove_all(kept());
        Plugin plugin(file);
        plugin.load();
        auto effect = plugin.create(GENERAL, saved);
        setup.interactive = !batch;
        if (!batch) generate(plugin, *effect);
        CHECK(is_wanted(*plugin.render(*effect, 0)));
        plugin.destroy(effect);
        plugin.unload();
    }
}

// Parameters alone are enough: the clip is made when it is rendered, by several renders at once, and is there again in
// another session.
static void make(const std::string& file, const std::string& folder) {
    std::ifstream result(folder + "/clone.rgb", std::ios::binary);
    std::vector<char> wanted((std::istreambuf_iterator<char>(result)), {});
    std::filesystem::remove_all(std::getenv("MOTIONCLONE_CACHE"));
    std::filesystem::remove_all(kept());
    setup.pixel = waves;
    setup.name = "MLT";
    setup.background = true;
    setup.temporal = false;
    setup.messages = Setup::NONE;
    setup.progress1 = setup.progress2 = false;
    auto values = [&](Effect& effect) {
        auto set = [&](const char* name, double number) {
            effect.parameter(name).value.i = int(number);
            effect.parameter(name).value.d = number;
        };
        for (const char* name : {"width", "height"}) set(name, 64);
        set("device", 1), set("frames", 4), set("steps", 12), set("guidanceSteps", 6), set("warmUp", 0), set("coolUp", 0);
        set("make", 1);
        effect.parameter("prompt").value.s = "ground";
        effect.parameter("bundle").value.s = bundle();
        effect.parameter("referenceFile").value.s = folder + "/images/00.bmp";
        effect.parameter("keepFolder").value.s = kept();
    };
    for (int session = 0; session < 2; session++) {
        Plugin plugin(file);
        plugin.load();
        auto described = plugin.describe(FILTER);
        CHECK(!described->parameter("result").properties.find(kOfxParamPropSecret, 0)->i);
        CHECK(described->parameter("refresh").properties.find(kOfxParamPropSecret, 0)->i);
        {
            auto effect = plugin.create(FILTER);
            CHECK(!says(*effect, "press"));
            effect->parameter("make").value.i = 1;
            effect->parameter("bundle").value.s = bundle();
            setup.fails = true;
            CHECK(!is_source(*plugin.render(*effect, 0), 0) && !plugin.was_identity);
            plugin.change(*effect, "update");
            CHECK(says(*effect, "Reference file"));
            setup.fails = false;
            plugin.destroy(effect);
        }
        // An instance a frame, each on a thread of its own.
        auto begin = std::chrono::steady_clock::now();
        std::vector<std::thread> threads;
        std::atomic<int> right{0};
        for (int frame : {0, 2, 4, 7})
            threads.emplace_back([&, frame] {
                auto effect = plugin.create(FILTER);
                values(*effect);
                effect->output = std::make_unique<Image>(setup.format, Range{0, 0, 64, 64}, Range{0, 0, 64, 64}, 1);
                Properties in;
                in.set(kOfxPropTime, {double(frame)});
                in.set(kOfxImageEffectPropRenderScale, {1, 1});
                in.set(kOfxImageEffectPropRenderWindow, {0, 0, 64, 64});
                CHECK(plugin.act(kOfxImageEffectActionRender, effect.get(), &in) == OK);
                auto bytes = rgb(*effect->output);
                size_t index = frame == 7 ? 3 : size_t(frame) / 2;
                right += std::equal(bytes.begin(), bytes.end(), reinterpret_cast<uint8_t*>(wanted.data()) + index * bytes.size());
                effect->output.reset();
                plugin.destroy(effect);
            });
        for (auto& thread : threads) thread.join();
        CHECK(right == 4);
        // The second time it is taken from where it is kept, whatever became of the cache.
        if (session) CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(1));
        std::filesystem::remove_all(std::getenv("MOTIONCLONE_CACHE"));
        // A host that does not want the render any more gets it back at once.
        auto effect = plugin.create(FILTER);
        values(*effect);
        effect->parameter("prompt").value.s = "long " + std::to_string(session);
        effect->parameter("steps").value.i = 1000;
        setup.abort_after = counts.aborts + 3;
        begin = std::chrono::steady_clock::now();
        plugin.render(*effect, 0);
        CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(2));
        setup.abort_after = -1;
        plugin.destroy(effect);
        plugin.unload();
    }
    // Nowhere to keep it: it says so and is shown.
    setup.messages = Setup::V2;
    Plugin plugin(file);
    plugin.load();
    auto effect = plugin.create(FILTER);
    values(*effect);
    effect->parameter("prompt").value.s = "nowhere";
    effect->parameter("steps").value.i = 1;
    effect->parameter("guidanceSteps").value.i = 0;
    effect->parameter("keepFolder").value.s = effect->parameter("cacheFolder").value.s = folder + "/reference.rgb";
    int messages = counts.persistent;
    auto first = rgb(*plugin.render(*effect, 0));
    CHECK(!is_source(*plugin.render(*effect, 0), 0) && rgb(*plugin.render(*effect, 0)) == first);
    CHECK(counts.persistent == messages + 1 && counts.last_message.find("cannot be kept") != std::string::npos);
    plugin.destroy(effect);
    plugin.unload();
}

// Straight and premultiplied pictures of the same colours give the same clip, in every depth.
static void alpha(const std::string& file, const std::string&) {
    Plugin plugin(file);
    plugin.load();
    setup.pixel = waves;
    auto effect = plugin.create(FILTER);
    quick(plugin, *effect, "alpha", 1);
    std::set<std::string> results;
    for (Depth depth : {BYTE, FLOAT})
        for (int alpha : {255, 128})
            for (bool premultiplied : {false, true}) {
                setup.format = {depth, 4, true, 0, premultiplied};
                // Colours that survive the multiplication in 8 bits.
                setup.pixel = [=](int time, int x, int y, int channel) {
                    float opacity = float(alpha) / 255;
                    float colour = (x / 8 + y / 8 + time + channel) % 2 ? 1.f : 0.f;
                    return channel == 3 ? opacity : colour * (premultiplied ? opacity : 1);
                };
                plugin.change(*effect, "generate");
                CHECK(within(60, [&] { return finished(*effect) && text(*effect, "result").size() == 32; }));
                results.insert(text(*effect, "result"));
            }
    CHECK(results.size() == 1);
    // Nothing is to be seen where there is nothing.
    setup.pixel = [](int time, int x, int, int channel) { return channel == 3 ? float(x > 3) : float((x + time) % 2 && x > 3); };
    std::set<std::string> empty;
    for (bool premultiplied : {false, true}) {
        setup.format.premultiplied = premultiplied;
        plugin.change(*effect, "generate");
        CHECK(within(60, [&] { return finished(*effect) && text(*effect, "result").size() == 32; }));
        empty.insert(text(*effect, "result"));
    }
    CHECK(empty.size() == 1 && *empty.begin() != *results.begin());
    plugin.destroy(effect);
    plugin.unload();
}

// Nothing is set outside the actions in which the standard allows it, unless the user says so.
static void standard(const std::string& file, const std::string&) {
    setup.pixel = waves;
    Plugin plugin(file);
    CHECK(plugin.major() == 1);
    plugin.load();
    auto described = plugin.describe();
    CHECK(described->properties.find(kOfxPropVersion, 0)->i == int(plugin.major()));
    CHECK(!described->properties.text(kOfxPropVersionLabel).empty());
    auto effect = plugin.create(FILTER);
    quick(plugin, *effect, "standard", 2);
    plugin.set(*effect, "live", 0);
    plugin.change(*effect, "generate");
    auto sets = [&] {
        int all = 0;
        Guard guard(ofx::lock);
        for (auto& parameter : effect->parameters) all += parameter->sets;
        return all;
    };
    int before = sets();
    CHECK(within(60, [&] { return !is_source(*plugin.render(*effect, 1), 1); }));
    CHECK(sets() == before && !finished(*effect));
    // The next action tells it.
    plugin.act(kOfxActionBeginInstanceChanged, effect.get());
    CHECK(finished(*effect) && text(*effect, "result").size() == 32);
    // Threads are the host's where it lends them.
    plugin.destroy(effect);
    plugin.unload();
    setup.threads = true;
    setup.region = {0, 0, 640, 640};
    plugin.load();
    effect = plugin.create(FILTER);
    quick(plugin, *effect, "standard", 2);
    plugin.set(*effect, "wait", 1);
    generate(plugin, *effect);
    plugin.render(*effect, 1);
    CHECK(threads_lent == 3);
    // The same frame for every time is no motion.
    setup.frozen = true;
    plugin.set(*effect, "prompt", "frozen");
    plugin.change(*effect, "generate");
    CHECK(says(*effect, "the same picture"));
    plugin.destroy(effect);
    plugin.unload();
}

// Cancel by button and dialog, instances destroyed and the plugin unloaded while jobs run.
static void cancel(const std::string& file, const std::string&) {
    setup.pixel = waves;
    {
        Plugin plugin(file);
        plugin.load();
        auto effect = plugin.create(FILTER);
        quick(plugin, *effect, "long", 1000);
        plugin.change(*effect, "generate");
        CHECK(within(60, [&] { return says(*effect, "Making the clip"); }));
        plugin.change(*effect, "cancel");
        CHECK(says(*effect, "Cancelled") && text(*effect, "result").empty());
        CHECK(is_source(*plugin.render(*effect, 1), 1));
        // The dialog of the wait is cancelled.
        plugin.set(*effect, "wait", 1);
        plugin.set(*effect, "prompt", "longer");
        setup.cancel_at = 1;  // the last frame that is read
        plugin.change(*effect, "generate");
        CHECK(says(*effect, "Cancelled"));
        setup.cancel_at = 2;
        std::thread([] { pause(1500); setup.cancel_at = 0; }).detach();
        auto begin = std::chrono::steady_clock::now();
        plugin.change(*effect, "generate");
        CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(30) && says(*effect, "Cancelled"));
        setup.cancel_at = 2;
        plugin.set(*effect, "wait", 0);
        // Instances end while their jobs wait or run; the others go on.
        std::vector<Instance> more;
        for (int index = 0; index < 4; index++) {
            more.push_back(plugin.create(index % 2 ? FILTER : GENERAL));
            quick(plugin, *more.back(), "long " + std::to_string(index), 1000);
            plugin.change(*more.back(), "generate");
            plugin.render(*more.back(), index);
        }
        for (int index = 0; index < 3; index++) {
            pause(100);
            plugin.destroy(more[size_t(index)]);
        }
        plugin.change(*more[3], "update");
        CHECK(text(*more[3], "result").size() == 32);
        // The host unloads in the middle of it, and leaves an instance behind.
        plugin.destroy(more[3]);
        begin = std::chrono::steady_clock::now();
        plugin.unload();
        CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
    }
    Plugin plugin(file);
    plugin.load();
    auto effect = plugin.create(FILTER);
    quick(plugin, *effect, "short", 2);
    plugin.set(*effect, "wait", 1);
    generate(plugin, *effect);
    CHECK(!is_source(*plugin.render(*effect, 1), 1));
    plugin.destroy(effect);
    plugin.unload();
}

// Hosts that lack something: suites, temporal access, frames.
static void hosts(const std::string& file, const std::string&) {
    setup.pixel = waves;
    for (auto messages : {Setup::NONE, Setup::ONLY_V1, Setup::NULL_V2, Setup::V2}) {
        setup.messages = messages;
        setup.progress1 = messages == Setup::NULL_V2 || messages == Setup::V2;
        setup.progress2 = messages == Setup::V2;
        counts.boxes = counts.persistent = counts.cleared = 0;
        Plugin plugin(file);
        plugin.load();
        auto effect = plugin.create(FILTER);
        // No model: one message, in the one way that the host has.
        plugin.change(*effect, "generate");
        CHECK(says(*effect, "The embedded model is missing"));
        bool persists = messages == Setup::V2, boxes = messages == Setup::ONLY_V1 || messages == Setup::NULL_V2;
        CHECK(counts.persistent == persists && counts.boxes == boxes);
        if (persists || boxes) CHECK(counts.last_message.find("The embedded model is missing") == 0);
        // What only the engine finds.
        quick(plugin, *effect, "ground", 2);
        plugin.set(*effect, "topK", 200);
        plugin.change(*effect, "generate");
        CHECK(within(60, [&] { return says(*effect, "200"); }));
        if (persists) CHECK(within(5, [&] { return counts.persistent == 2; }));
        plugin.change(*effect, "update");
        CHECK(counts.persistent == 2 * persists && counts.boxes == 2 * boxes);
        plugin.set(*effect, "topK", 1);
        if (messages == Setup::NONE || messages == Setup::ONLY_V1) {
            plugin.destroy(effect);
            plugin.unload();
            continue;
        }
        // Some frames cannot be had; their neighbours stand in.
        setup.failing = {0, 4};
        generate(plugin, *effect);
        CHECK(counts.cleared >= persists && counts.persistent == 2 * persists);
        setup.failing = {};
        // None can be had but in renders.
        setup.frames_in_changes = false;
        plugin.set(*effect, "prompt", "sky");
        plugin.change(*effect, "generate");
        CHECK(says(*effect, "0 of 4") && number(*effect, "refresh") > 1);
        plugin.render(*effect, 5);
        CHECK(plugin.frames_needed == 5);
        CHECK(within(120, [&] { return finished(*effect); }));
        setup.frames_in_changes = true;
        // None at all: said, and nothing else.
        setup.failing = {0, 1, 2, 3, 4, 5, 6, 7};
        plugin.set(*effect, "prompt", "nothing");
        plugin.change(*effect, "generate");
        plugin.render(*effect, 5);
        plugin.change(*effect, "update");
        CHECK(says(*effect, "does not hand out"));
        plugin.change(*effect, "cancel");
        setup.failing = {};
        plugin.destroy(effect);
        plugin.unload();
    }
    // Only the frame at hand can be had: the clip is played.
    setup.temporal = setup.frames_in_changes = false;
    Plugin plugin(file);
    plugin.load();
    auto effect = plugin.create(FILTER);
    quick(plugin, *effect, "played", 2);
    // This host does not want to be called by another thread.
    plugin.set(*effect, "live", 0);
    plugin.change(*effect, "generate");
    int sets = effect->parameter("status").sets;
    for (int time : {7, 3, 0, 1, 2, 5, 4}) plugin.render(*effect, time);
    pause(3000);
    CHECK(effect->parameter("status").sets == sets);
    CHECK(within(60, [&] {
        plugin.change(*effect, "update");
        return finished(*effect);
    }));
    CHECK(!is_source(*plugin.render(*effect, 3), 3));
    setup.temporal = setup.frames_in_changes = true;
    plugin.destroy(effect);
    plugin.unload();
}

// Pictures and sketches from the input and a file; a generator with a folder of images.
static void conditions(const std::string& file, const std::string& folder) {
    setup.pixel = waves;
    setup.condition = true;
    Plugin plugin(file);
    plugin.load();
    auto effect = plugin.create(GENERAL);
    quick(plugin, *effect, "ground");
    generate(plugin, *effect);
    auto plain = rgb(*plugin.render(*effect, 0));
    plugin.set(*effect, "mode", 1);
    generate(plugin, *effect);
    auto picture = rgb(*plugin.render(*effect, 0));
    plugin.set(*effect, "mode", 2);
    generate(plugin, *effect);
    auto sketch = rgb(*plugin.render(*effect, 0));
    CHECK(plain != picture && picture != sketch);
    // The input shows frame 0 of the reference; so does the file.
    auto other = plugin.create(FILTER);
    quick(plugin, *other, "ground");
    plugin.set(*other, "mode", 1);
    plugin.change(*other, "generate");
    CHECK(says(*other, "needs a picture"));
    plugin.set(*other, "imageFile", folder + "/images/00.bmp");
    generate(plugin, *other);
    CHECK(rgb(*plugin.render(*other, 0)) == picture);
    auto made = plugin.create(GENERATOR);
    quick(plugin, *made, "ground");
    plugin.change(*made, "generate");
    CHECK(says(*made, "No reference is chosen"));
    auto black = rgb(*plugin.render(*made, 0));
    CHECK(std::set<uint8_t>(black.begin(), black.end()) == std::set<uint8_t>{0});
    for (const char* reference : {"/images/00.bmp", "/clip.mkv"}) {
        plugin.set(*made, "referenceFile", folder + reference);
        generate(plugin, *made);
        CHECK(rgb(*plugin.render(*made, 0)) == plain);
    }
    plugin.destroy(effect);
    plugin.destroy(other);
    plugin.destroy(made);
    plugin.unload();
}

// Nothing is there but the plugin: it shows its parameters and says what is missing.
static void missing(const std::string& file, const std::string&) {
    setup.pixel = waves;
    Plugin plugin(file);
    plugin.load();
    auto effect = plugin.create(FILTER);
    CHECK(says(*effect, "The engine is missing"));
    plugin.change(*effect, "generate");
    CHECK(counts.persistent == 1 && counts.last_message.find("The engine is missing") == 0);
    CHECK(is_source(*plugin.render(*effect, 1), 1));
    plugin.destroy(effect);
    plugin.unload();
}

// The engine is there, and ONNX Runtime is not.
static void no_runtime(const std::string& file, const std::string&) {
    Plugin plugin(file);
    plugin.load();
    auto effect = plugin.create(FILTER);
    CHECK(says(*effect, "ONNX Runtime is missing"));
    plugin.change(*effect, "generate");
    CHECK(counts.persistent == 1 && counts.last_message.find("ONNX Runtime is missing") == 0);
    CHECK(is_source(*plugin.render(*effect, 1), 1));
    plugin.destroy(effect);
    plugin.unload();
}

// All that a bundle of the plugin needs lies in it.
static void installed(const std::string& file, const std::string&) {
    Plugin plugin(file);
    plugin.load();
    auto effect = plugin.create(FILTER);
    // The model is in it, too, and the page shows that model's numbers.
    CHECK(says(*effect, "Ready"));
    CHECK(number(*effect, "width") < 512 && number(*effect, "quality") == 1 && number(*effect, "size") == 0);
    quick(plugin, *effect, "installed", 1);
    plugin.set(*effect, "bundle", "");
    generate(plugin, *effect);
    CHECK(!is_source(*plugin.render(*effect, 1), 1));
    plugin.destroy(effect);
    plugin.unload();
}

// How long a render of 1920x1080 takes in floating point, with the clip of the reopened project.
static void bench(const std::string& file, const std::string&) {
    setup.pixel = waves;
    Plugin plugin(file);
    plugin.load();
    auto effect = plugin.create(FILTER);
    quick(plugin, *effect, "bench", 1);
    plugin.set(*effect, "width", 512);
    plugin.set(*effect, "height", 512);
    plugin.set(*effect, "frames", 2);
    generate(plugin, *effect);
    setup.region = {0, 0, 1920, 1080};
    setup.format = {FLOAT, 4, true, 0, true};
    for (int colours : {1, 2}) {
        plugin.set(*effect, "colours", colours);
        std::vector<double> times;
        for (int round = 0; round < 40; round++) {
            Properties in;
            in.set(kOfxPropTime, {double(round % 8)});
            in.set(kOfxImageEffectPropRenderScale, {1, 1});
            in.set(kOfxImageEffectPropRenderWindow, {0, 0, 1920, 1080});
            effect->output = std::make_unique<Image>(setup.format, Range{0, 0, 1920, 1080}, Range{0, 0, 1920, 1080}, 1);
            auto begin = std::chrono::steady_clock::now();
            CHECK(plugin.act(kOfxImageEffectActionRender, effect.get(), &in) == OK);
            times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
        }
        std::sort(times.begin(), times.end());
        std::printf("render of 1920x1080 float, %s: median %.1f ms, fastest %.1f ms, slowest %.1f ms\n",
                    colours == 1 ? "video" : "linear light", times[20], times[0], times[39]);
        std::fflush(stdout);
        // A host that plays must not wait for it.
        // The fastest, since other programs delay some of them.
        CHECK(times[0] <= 20);
    }
    plugin.destroy(effect);
    plugin.unload();
}

int main(int count, char** words) {
    const std::map<std::string, void (*)(const std::string&, const std::string&)> scenarios = {
        {"describe", describe}, {"parameters", parameters}, {"source", source},         {"clone", clone},
        {"reopen", reopen},     {"cancel", cancel},         {"hosts", hosts},           {"conditions", conditions},
        {"make", make},         {"alpha", alpha},           {"standard", standard},
        {"missing", missing},   {"no-runtime", no_runtime}, {"installed", installed},   {"bench", bench},
    };
    auto scenario = scenarios.find(count > 2 ? words[2] : "");
    if (scenario == scenarios.end()) {
        std::fprintf(stderr, "usage: host PLUGIN SCENARIO [FOLDER]\n");
        return 2;
    }
    setup.pixel = waves;
    scenario->second(words[1], count > 3 ? words[3] : "");
    std::printf("%s: as it should be\n", scenario->first.c_str());
    return 0;
}
