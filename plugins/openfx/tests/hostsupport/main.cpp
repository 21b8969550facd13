// Drives the plugin through the OpenFX project's own host library: `hostsupport SCENARIO FOLDER`, with the plugin in
// OFX_PLUGIN_PATH. Fails at the first thing that is not as it should be. TEST_BUNDLE names a bundle.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "ofxCore.h"
#include "ofxImageEffect.h"
#include "ofxPixels.h"
#include "ofxhBinary.h"
#include "ofxhPropertySuite.h"
#include "ofxhClip.h"
#include "ofxhParam.h"
#include "ofxhMemory.h"
#include "ofxhImageEffect.h"
#include "ofxhPluginAPICache.h"
#include "ofxhPluginCache.h"
#include "ofxhHost.h"
#include "ofxhImageEffectAPI.h"

#define CHECK(condition)                                                                    \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);    \
            std::abort();                                                                   \
        }                                                                                   \
    } while (false)

using namespace OFX::Host;

static const int SIDE = 64, FRAMES = 8;

// What pictures the host hands out, and what it has heard.
static struct {
    std::string depth = kOfxBitDepthByte;
    int alpha = 255;
    bool premultiplied = false, background = false;
} setup;
static std::recursive_mutex values;
using Guard = std::lock_guard<std::recursive_mutex>;
static std::atomic<int> errors{0};
static std::string last_error;

struct Clip;

struct Picture : ImageEffect::Image {
    std::vector<unsigned char> memory;
    Picture(Clip& clip, double time, bool output);
};

struct Clip : ImageEffect::ClipInstance {
    std::string name;
    Picture* output = nullptr;
    Clip(ImageEffect::Instance* effect, ImageEffect::ClipDescriptor& descriptor)
        : ClipInstance(effect, descriptor), name(descriptor.getName()) {}
    ~Clip() override { release(); }
    void release() {
        if (output) output->releaseReference();
        output = nullptr;
    }
    const std::string& getUnmappedBitDepth() const override { return setup.depth; }
    const std::string& getUnmappedComponents() const override {
        static const std::string rgba(kOfxImageComponentRGBA);
        return rgba;
    }
    const std::string& getPremult() const override {
        static const std::string premultiplied(kOfxImagePreMultiplied), straight(kOfxImageUnPreMultiplied);
        return setup.premultiplied ? premultiplied : straight;
    }
    double getAspectRatio() const override { return 1; }
    double getFrameRate() const override { return 24; }
    void getFrameRange(double& first, double& last) const override { first = 0, last = FRAMES - 1; }
    const std::string& getFieldOrder() const override {
        static const std::string none(kOfxImageFieldNone);
        return none;
    }
    bool getConnected() const override { return name != "Condition"; }
    double getUnmappedFrameRate() const override { return 24; }
    void getUnmappedFrameRange(double& first, double& last) const override { getFrameRange(first, last); }
    bool getContinuousSamples() const override { return false; }
    ImageEffect::Image* getImage(OfxTime time, const OfxRectD*) override {
        if (!getConnected()) return nullptr;
        if (name != "Output") return new Picture(*this, time, false);
        if (!output) output = new Picture(*this, time, true);
        output->addReference();
        return output;
    }
    OfxRectD getRegionOfDefinition(OfxTime) const override { return {0, 0, double(SIDE), double(SIDE)}; }
};

// Colours that survive any multiplication with alpha: squares that move.
static float colour(int time, int x, int y, int channel) { return (x / 8 + y / 8 + time + channel) % 2 ? 1.f : 0.f; }

Picture::Picture(Clip& clip, double time, bool output) : Image(clip) {
    const std::string depth = clip.getPixelDepth();
    const size_t sample = depth == kOfxBitDepthFloat ? 4 : depth == kOfxBitDepthByte ? 1 : 2;
    memory.assign(size_t(SIDE) * SIDE * 4 * sample, 0x5a);
    for (int y = 0; !output && y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            for (int channel = 0; channel < 4; channel++) {
                float alpha = float(setup.alpha) / 255, value = colour(int(time), x, y, channel);
                if (setup.premultiplied) value *= alpha;
                if (channel == 3) value = alpha;
                unsigned char* place = &memory[((size_t(y) * SIDE + x) * 4 + channel) * sample];
                if (depth == kOfxBitDepthFloat) {
                    std::memcpy(place, &value, 4);
                } else if (depth == kOfxBitDepthHalf) {
                    _Float16 half = _Float16(value);
                    std::memcpy(place, &half, 2);
                } else if (depth == kOfxBitDepthShort) {
                    uint16_t two = uint16_t(std::lround(value * 65535));
                    std::memcpy(place, &two, 2);
                } else {
                    *place = (unsigned char)std::lround(value * 255);
                }
            }
    for (int i : {0, 1}) setDoubleProperty(kOfxImageEffectPropRenderScale, 1.0, i);
    setPointerProperty(kOfxImagePropData, memory.data());
    const int box[] = {0, 0, SIDE, SIDE};
    for (int i = 0; i < 4; i++) {
        setIntProperty(kOfxImagePropBounds, box[i], i);
        setIntProperty(kOfxImagePropRegionOfDefinition, box[i], i);
    }
    setIntProperty(kOfxImagePropRowBytes, int(SIDE * 4 * sample));
}

// Parameters: the library asks for a class a type.
template <class Base, class T>
struct Number : Base {
    T value{};
    Number(Param::Descriptor& descriptor, Param::SetInstance* set, T initial) : Base(descriptor, set), value(initial) {}
    OfxStatus get(T& out) override {
        Guard guard(values);
        out = value;
        return kOfxStatOK;
    }
    OfxStatus get(OfxTime, T& out) override { return get(out); }
    OfxStatus set(T in) override {
        Guard guard(values);
        value = in;
        return kOfxStatOK;
    }
    OfxStatus set(OfxTime, T in) override { return set(in); }
};
using Int = Number<Param::IntegerInstance, int>;
using Choice = Number<Param::ChoiceInstance, int>;
using Bool = Number<Param::BooleanInstance, bool>;
struct Double : Number<Param::DoubleInstance, double> {
    using Number::Number;
    OfxStatus derive(OfxTime, double&) override { return kOfxStatErrMissingHostFeature; }
    OfxStatus integrate(OfxTime, OfxTime, double&) override { return kOfxStatErrMissingHostFeature; }
};
struct String : Param::StringInstance {
    std::string value;
    String(Param::Descriptor& descriptor, Param::SetInstance* set, std::string initial)
        : StringInstance(descriptor, set), value(initial) {}
    OfxStatus get(std::string& out) override {
        Guard guard(values);
        out = value;
        return kOfxStatOK;
    }
    OfxStatus get(OfxTime, std::string& out) override { return get(out); }
    OfxStatus set(const char* in) override {
        Guard guard(values);
        value = in;
        return kOfxStatOK;
    }
    OfxStatus set(OfxTime, const char* in) override { return set(in); }
};
struct Button : Param::PushbuttonInstance {
    Button(Param::Descriptor& descriptor, Param::SetInstance* set) : PushbuttonInstance(descriptor, set) {}
};

struct Effect : ImageEffect::Instance {
    Effect(ImageEffect::ImageEffectPlugin* plugin, ImageEffect::Descriptor& descriptor, const std::string& context)
        : Instance(plugin, descriptor, context, false) {}
    const std::string& getDefaultOutputFielding() const override {
        static const std::string none(kOfxImageFieldNone);
        return none;
    }
    ImageEffect::ClipInstance* newClipInstance(ImageEffect::Instance* effect, ImageEffect::ClipDescriptor* clip, int) override {
        return new Clip(effect, *clip);
    }
    OfxStatus vmessage(const char*, const char*, const char* format, va_list list) override {
        char text[4000];
        std::vsnprintf(text, sizeof text, format, list);
        Guard guard(values);
        last_error = text;
        errors++;
        return kOfxStatOK;
    }
    OfxStatus setPersistentMessage(const char* type, const char* id, const char* format, va_list list) override {
        return vmessage(type, id, format, list);
    }
    OfxStatus clearPersistentMessage() override { return kOfxStatOK; }
    void getProjectSize(double& x, double& y) const override { x = y = SIDE; }
    void getProjectOffset(double& x, double& y) const override { x = y = 0; }
    void getProjectExtent(double& x, double& y) const override { getProjectSize(x, y); }
    double getProjectPixelAspectRatio() const override { return 1; }
    double getEffectDuration() const override { return FRAMES; }
    double getFrameRate() const override { return 24; }
    double getFrameRecursive() const override { return 0; }
    void getRenderScaleRecursive(double& x, double& y) const override { x = y = 1; }
    Param::Instance* newParam(const std::string&, Param::Descriptor& descriptor) override {
        const std::string type = descriptor.getType();
        auto& properties = descriptor.getProperties();
        auto whole = [&] { return properties.getIntProperty(kOfxParamPropDefault); };
        if (type == kOfxParamTypeInteger) return new Int(descriptor, this, whole());
        if (type == kOfxParamTypeChoice) return new Choice(descriptor, this, whole());
        if (type == kOfxParamTypeBoolean) return new Bool(descriptor, this, whole() != 0);
        if (type == kOfxParamTypeDouble) return new Double(descriptor, this, properties.getDoubleProperty(kOfxParamPropDefault));
        if (type == kOfxParamTypeString) return new String(descriptor, this, properties.getStringProperty(kOfxParamPropDefault));
        if (type == kOfxParamTypePushButton) return new Button(descriptor, this);
        if (type == kOfxParamTypeGroup) return new Param::GroupInstance(descriptor, this);
        if (type == kOfxParamTypePage) return new Param::PageInstance(descriptor, this);
        return nullptr;
    }
    OfxStatus editBegin(const std::string&) override { return kOfxStatOK; }
    OfxStatus editEnd() override { return kOfxStatOK; }
    void progressStart(const std::string&, const std::string&) override {}
    void progressEnd() override {}
    bool progressUpdate(double) override { return true; }
    double timeLineGetTime() override { return 0; }
    void timeLineGotoTime(double) override {}
    void timeLineGetBounds(double& first, double& last) override { first = 0, last = FRAMES - 1; }
    int abort() override { return 0; }

    // ---- what a user does ----
    std::string text(const std::string& name) {
        Guard guard(values);
        auto* parameter = dynamic_cast<String*>(getParam(name));
        CHECK(parameter);
        return parameter->value;
    }
    void put(const std::string& name, const std::string& value) {
        Guard guard(values);
        auto* parameter = getParam(name);
        CHECK(parameter);
        if (auto* number = dynamic_cast<Int*>(parameter)) number->value = std::stoi(value);
        else if (auto* choice = dynamic_cast<Choice*>(parameter)) choice->value = std::stoi(value);
        else if (auto* on = dynamic_cast<Bool*>(parameter)) on->value = value == "1";
        else if (auto* real = dynamic_cast<Double*>(parameter)) real->value = std::stod(value);
        else if (auto* string = dynamic_cast<String*>(parameter)) string->value = value;
    }
    void changed(const std::string& name) {
        beginInstanceChangedAction(kOfxChangeUserEdited);
        CHECK(paramInstanceChangedAction(name, kOfxChangeUserEdited, 0, {1, 1}) == kOfxStatOK);
        endInstanceChangedAction(kOfxChangeUserEdited);
    }
    void set(const std::string& name, const std::string& value) {
        put(name, value);
        changed(name);
    }
    // Waits as a user does who presses Update.
    bool finishes(const std::string& word) {
        auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
        while (std::chrono::steady_clock::now() < end) {
            changed("update");
            if (text("status").find(word) != std::string::npos) return true;
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
        std::fprintf(stderr, "status: %s\n", text("status").c_str());
        return false;
    }
    // The pixels of a render; empty where it failed.
    std::vector<unsigned char> render(double time, bool interactive) {
        const OfxRectI window{0, 0, SIDE, SIDE};
        getClipPreferences();
        std::string clip;
        OfxTime at = time;
        identity = isIdentityAction(at, kOfxImageFieldNone, window, {1, 1}, clip) == kOfxStatOK;
        beginRenderAction(time, time, 1, interactive, {1, 1}, true, interactive);
        OfxStatus status = renderAction(time, kOfxImageFieldNone, window, {1, 1}, true, interactive, false);
        endRenderAction(time, time, 1, interactive, {1, 1}, true, interactive);
        auto* output = dynamic_cast<Clip*>(getClip("Output"));
        CHECK(output && output->output);
        auto pixels = output->output->memory;
        output->release();
        return status == kOfxStatOK ? pixels : std::vector<unsigned char>{};
    }
    bool identity = false;
};

struct TestHost : ImageEffect::Host {
    TestHost() {
        _properties.setStringProperty(kOfxPropName, "test.hostsupport");
        _properties.setIntProperty(kOfxImageEffectHostPropIsBackground, setup.background);
        _properties.setIntProperty(kOfxImageEffectPropTemporalClipAccess, 1);
        _properties.setIntProperty(kOfxParamHostPropMaxParameters, -1);
    }
    ImageEffect::Instance* newInstance(void*, ImageEffect::ImageEffectPlugin* plugin, ImageEffect::Descriptor& descriptor,
                                       const std::string& context) override {
        return new Effect(plugin, descriptor, context);
    }
    ImageEffect::Descriptor* makeDescriptor(ImageEffect::ImageEffectPlugin* plugin) override {
        return new ImageEffect::Descriptor(plugin);
    }
    ImageEffect::Descriptor* makeDescriptor(const ImageEffect::Descriptor& root, ImageEffect::ImageEffectPlugin* plugin) override {
        return new ImageEffect::Descriptor(root, plugin);
    }
    ImageEffect::Descriptor* makeDescriptor(const std::string& path, ImageEffect::ImageEffectPlugin* plugin) override {
        return new ImageEffect::Descriptor(path, plugin);
    }
    OfxStatus vmessage(const char*, const char*, const char*, va_list) override { return kOfxStatOK; }
    OfxStatus setPersistentMessage(const char*, const char*, const char*, va_list) override { return kOfxStatOK; }
    OfxStatus clearPersistentMessage() override { return kOfxStatOK; }
};

// The host and the plugin in it.
struct Session {
    TestHost host;
    ImageEffect::PluginCache effects{host};
    ImageEffect::ImageEffectPlugin* plugin;
    Session() {
        auto* cache = PluginCache::getPluginCache();
        cache->setCacheVersion("test");
        effects.registerInCache(*cache);
        cache->scanPluginFiles();
        plugin = effects.getPluginById("org.motionclone.MotionClone");
        CHECK(plugin && plugin->getVersionMajor() == 1);
    }
    std::unique_ptr<Effect> create(const std::map<std::string, std::string>& saved = {}) {
        std::unique_ptr<Effect> effect(dynamic_cast<Effect*>(plugin->createInstance(kOfxImageEffectContextFilter, nullptr)));
        CHECK(effect);
        for (auto& [name, value] : saved) effect->put(name, value);
        CHECK(effect->createInstanceAction() == kOfxStatOK);
        return effect;
    }
};

static void quick(Effect& effect, const std::string& folder, const std::string& prompt, int steps) {
    const char* bundle = std::getenv("TEST_BUNDLE");
    CHECK(bundle);
    for (auto& [name, value] : std::initializer_list<std::pair<std::string, std::string>>{
             {"bundle", bundle}, {"device", "1"}, {"keepFolder", folder + "/kept"}, {"prompt", prompt}, {"width", "64"},
             {"height", "64"}, {"frames", "4"}, {"steps", std::to_string(steps)}, {"guidanceSteps", std::to_string(steps / 2)},
             {"warmUp", "0"}, {"coolUp", "0"}})
        effect.set(name, value);
}

// Straight and premultiplied pictures of the same colours are the same to the plugin, in all depths.
static void alpha(const std::string& folder) {
    Session session;
    auto effect = session.create();
    quick(*effect, folder, "alpha", 1);
    std::set<std::string> seen, empty;
    for (const char* depth : {kOfxBitDepthByte, kOfxBitDepthShort, kOfxBitDepthHalf, kOfxBitDepthFloat})
        for (bool premultiplied : {false, true})
            for (int alpha : {255, 128}) {
                setup.depth = depth, setup.premultiplied = premultiplied, setup.alpha = alpha;
                effect->changed("generate");
                CHECK(effect->finishes("The clip is there"));
                seen.insert(effect->text("result"));
            }
    CHECK(seen.size() == 1 && errors == 0);
    // Straight colours are there even where nothing covers; multiplied ones are gone.
    setup.alpha = 0, setup.premultiplied = false;
    effect->changed("generate");
    CHECK(effect->finishes("The clip is there") && effect->text("result") == *seen.begin());
    setup.premultiplied = true;
    effect->changed("generate");
    CHECK(effect->text("status").find("the same picture") != std::string::npos);
}

// A clip is made; its project and a frame of it are kept for other processes.
static void clone(const std::string& folder) {
    Session session;
    auto effect = session.create();
    quick(*effect, folder, "reopen", 2);
    auto source = effect->render(3, true);
    CHECK(effect->identity);
    effect->changed("generate");
    CHECK(effect->finishes("The clip is there"));
    auto shown = effect->render(3, true);
    CHECK(!shown.empty() && shown != source && !effect->identity);
    std::ofstream(folder + "/frame", std::ios::binary).write(reinterpret_cast<char*>(shown.data()), std::streamsize(shown.size()));
    std::ofstream project(folder + "/project");
    for (auto& [name, parameter] : effect->getParams()) {
        if (!parameter->getProperties().getIntProperty(kOfxParamPropPersistant)) continue;
        project << name << '\t';
        if (auto* number = dynamic_cast<Int*>(parameter)) project << number->value;
        else if (auto* choice = dynamic_cast<Choice*>(parameter)) project << choice->value;
        else if (auto* on = dynamic_cast<Bool*>(parameter)) project << on->value;
        else if (auto* real = dynamic_cast<Double*>(parameter)) project << real->value;
        else if (auto* string = dynamic_cast<String*>(parameter)) project << string->value;
        project << '\n';
    }
}

struct Kept {
    std::map<std::string, std::string> project;
    std::vector<unsigned char> frame;
    explicit Kept(const std::string& folder) {
        std::ifstream lines(folder + "/project"), pixels(folder + "/frame", std::ios::binary);
        for (std::string line; std::getline(lines, line);) {
            auto tab = line.find('\t');
            if (tab + 1 < line.size()) project[line.substr(0, tab)] = line.substr(tab + 1);
        }
        frame.assign(std::istreambuf_iterator<char>(pixels), {});
        CHECK(!project.empty() && !frame.empty());
    }
};

// The project in another session, with what it made.
static void reopen(const std::string& folder) {
    Kept kept(folder);
    Session session;
    CHECK(session.create(kept.project)->render(3, true) == kept.frame);
}

// The project in another session, with nothing left of what it made.
static void gone(const std::string& folder) {
    Kept kept(folder);
    for (const char* place : {"/kept", "/cache"}) CHECK(std::system(("rm -rf '" + folder + place + "'").c_str()) == 0);
    Session session;
    auto effect = session.create(kept.project);
    CHECK(effect->render(3, true).empty() && !effect->identity);
    CHECK(errors == 1 && last_error.find("no longer there") != std::string::npos);
    // Where nobody looks it is made again, unless it would be another one.
    effect->put("prompt", "another");
    CHECK(effect->render(3, false).empty());
    effect->put("prompt", "reopen");
    CHECK(effect->render(3, false) == kept.frame);
}

// A host that ends without a word, in its first job.
static void leave(const std::string& folder) {
    Session session;
    auto effect = session.create();
    quick(*effect, folder, "leave " + std::to_string(std::time(nullptr)), 1000);
    effect->changed("generate");
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    std::exit(0);
}

int main(int count, char** words) {
    const std::map<std::string, void (*)(const std::string&)> scenarios = {
        {"alpha", alpha}, {"clone", clone}, {"reopen", reopen}, {"gone", gone}, {"leave", leave}};
    auto scenario = scenarios.find(count > 1 ? words[1] : "");
    if (count < 3 || scenario == scenarios.end()) {
        std::fprintf(stderr, "usage: hostsupport SCENARIO FOLDER\n");
        return 2;
    }
    scenario->second(words[2]);
    std::printf("host library, %s: as it should be\n", scenario->first.c_str());
    std::fflush(stdout);
    PluginCache::clearPluginCache();
    return 0;
}
