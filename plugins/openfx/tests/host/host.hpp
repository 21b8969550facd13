// An OpenFX host in memory: it loads a plugin, keeps its parameters, hands out pictures that it draws itself, and counts
// what the plugin does. What kind of host it is can be chosen: without suites, with empty ones, one that refuses frames.
#pragma once

#include <dlfcn.h>

#include <atomic>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);        \
            std::abort();                                                                       \
        }                                                                                       \
    } while (false)

namespace ofx {

enum Status { OK = 0, FAILED = 1, FATAL = 2, UNKNOWN = 3, BAD_HANDLE = 9, BAD_INDEX = 10, NO = 13, DEFAULT = 14 };

struct Rect { double x1, y1, x2, y2; };
struct Range { int x1, y1, x2, y2; };

struct Value {
    int i = 0;
    double d = 0;
    std::string s;
    void* p = nullptr;
};

// The plugin's own thread may set parameters while others read them.
inline std::recursive_mutex lock;
using Guard = std::lock_guard<std::recursive_mutex>;

struct Properties {
    std::map<std::string, std::vector<Value>> values;

    Value& at(const std::string& name, size_t index = 0) {
        auto& list = values[name];
        if (list.size() <= index) list.resize(index + 1);
        return list[index];
    }
    const Value* find(const std::string& name, int index) const {
        auto found = values.find(name);
        if (found == values.end() || index < 0 || size_t(index) >= found->second.size()) return nullptr;
        return &found->second[size_t(index)];
    }
    void set(const std::string& name, std::initializer_list<double> numbers) {
        size_t index = 0;
        for (double number : numbers) {
            Value& value = at(name, index++);
            value.d = number;
            value.i = int(number);
        }
    }
    void set(const std::string& name, const std::string& text) { at(name).s = text; }
    std::string text(const std::string& name) const {
        const Value* value = find(name, 0);
        return value ? value->s : "";
    }
    int count(const std::string& name) const {
        auto found = values.find(name);
        return found == values.end() ? 0 : int(found->second.size());
    }
    bool has(const std::string& name) const { return count(name) > 0; }
};

struct Parameter {
    std::string type, name;
    Properties properties;
    Value value;
    int sets = 0;
};

struct Effect;

struct Clip {
    std::string name;
    Properties properties;
    Effect* effect = nullptr;
};

enum Depth { BYTE, SHORT, HALF, FLOAT };
inline const char* const DEPTHS[] = {"OfxBitDepthByte", "OfxBitDepthShort", "OfxBitDepthHalf", "OfxBitDepthFloat"};
inline const size_t SIZES[] = {1, 2, 2, 4};

inline uint16_t half_of(float value) {
    _Float16 half = _Float16(value);
    uint16_t bits;
    std::memcpy(&bits, &half, 2);
    return bits;
}

// How pictures lie in memory.
struct Format {
    Depth depth = BYTE;
    int samples = 4;
    bool bottom_first = true;  // otherwise row bytes are negative
    int padding = 0;           // bytes behind each row
    bool premultiplied = true;
    size_t pixel() const { return size_t(samples) * SIZES[depth]; }
};

struct Image {
    Properties properties;
    Format format;
    Range bounds{};
    std::vector<uint8_t> memory;
    ptrdiff_t row_bytes = 0;

    static constexpr uint8_t GUARD = 0xa5;

    Image(Format format_, Range bounds_, Range whole, double scale) : format(format_), bounds(bounds_) {
        size_t width = size_t(bounds.x2 - bounds.x1), height = size_t(bounds.y2 - bounds.y1);
        size_t row = width * format.pixel() + size_t(format.padding);
        memory.assign(row * height + 1, GUARD);
        // One byte off, so that nothing relies on alignment where there is padding.
        size_t start = format.padding ? 1 : 0;
        row_bytes = ptrdiff_t(row) * (format.bottom_first ? 1 : -1);
        uint8_t* data = memory.data() + start + (format.bottom_first ? 0 : row * (height - 1));
        properties.at("OfxImagePropData").p = data;
        properties.set("OfxImagePropBounds", {double(bounds.x1), double(bounds.y1), double(bounds.x2), double(bounds.y2)});
        properties.set("OfxImagePropRegionOfDefinition",
                       {double(whole.x1), double(whole.y1), double(whole.x2), double(whole.y2)});
        properties.set("OfxImagePropRowBytes", {double(row_bytes)});
        properties.set("OfxImageEffectPropPixelDepth", DEPTHS[format.depth]);
        properties.set("OfxImageEffectPropComponents",
                       format.samples == 4 ? "OfxImageComponentRGBA" : "OfxImageComponentRGB");
        properties.set("OfxImageEffectPropPreMultiplication",
                       format.premultiplied ? "OfxImagePreMultiplied" : "OfxImageUnPreMultiplied");
        properties.set("OfxImageEffectPropRenderScale", {scale, scale});
        properties.set("OfxImagePropPixelAspectRatio", {1});
    }
    uint8_t* at(int x, int y) {
        auto* data = static_cast<uint8_t*>(properties.at("OfxImagePropData").p);
        return data + (y - bounds.y1) * row_bytes + ptrdiff_t(x - bounds.x1) * ptrdiff_t(format.pixel());
    }
    void put(int x, int y, int channel, float value) {
        uint8_t* place = at(x, y) + size_t(channel) * SIZES[format.depth];
        uint16_t two;
        switch (format.depth) {
            case BYTE: *place = uint8_t(std::lround(std::fmin(std::fmax(value, 0.f), 1.f) * 255)); break;
            case SHORT:
                two = uint16_t(std::lround(std::fmin(std::fmax(value, 0.f), 1.f) * 65535));
                std::memcpy(place, &two, 2);
                break;
            case HALF:
                two = half_of(value);
                std::memcpy(place, &two, 2);
                break;
            case FLOAT: std::memcpy(place, &value, 4); break;
        }
    }
    float get(int x, int y, int channel) {
        uint8_t* place = at(x, y) + size_t(channel) * SIZES[format.depth];
        uint16_t two;
        _Float16 half;
        float value;
        switch (format.depth) {
            case BYTE: return float(*place) / 255;
            case SHORT: std::memcpy(&two, place, 2); return float(two) / 65535;
            case HALF: std::memcpy(&half, place, 2); return float(half);
            default: std::memcpy(&value, place, 4); return value;
        }
    }
    // Padding and everything outside a window must be as it was.
    bool untouched_outside(Range window) {
        std::vector<uint8_t> copy = memory;
        for (int y = window.y1; y < window.y2; y++) {
            size_t from = size_t(at(window.x1, y) - memory.data());
            std::memset(copy.data() + from, GUARD, size_t(window.x2 - window.x1) * format.pixel());
        }
        for (uint8_t byte : copy)
            if (byte != GUARD) return false;
        return true;
    }
};

// What kind of host it is, and what it has counted.
struct Setup {
    std::string name = "test.host";
    bool progress1 = true, progress2 = true;
    enum Messages { NONE, ONLY_V1, V2, NULL_V2 } messages = V2;
    bool temporal = true;
    bool frames_in_changes = true;      // whether frames can be had in InstanceChanged
    std::set<int> failing;              // times whose frames cannot be had
    int abort_after = -1;               // abort() answers true after so many calls
    double cancel_at = 2;               // the progress dialog's cancel is pressed at this share
    Format format;
    Rect region{0, 0, 64, 64};          // the source's region of definition
    int border = 0;                     // how much larger images are than their region
    double first = 0, last = 7;
    bool condition = false;             // whether the input Condition is connected
    std::function<float(int, int, int, int)> pixel;  // time, x, y from the bottom, channel -> value
};
inline Setup setup;

struct Counts {
    std::atomic<int> boxes{0}, persistent{0}, cleared{0}, images{0}, fetched{0}, progress{0}, dialogs{0}, aborts{0};
    std::string last_message;
};
inline Counts counts;
inline std::atomic<bool> rendering{false};

// Soft colours that move to the right; rows count from the bottom.
inline float waves(int time, int x, int y, int channel) {
    if (channel == 3) return 1;
    double u = x - 3.0 * time, v = 63 - y;
    double phase[] = {u / 7, v / 5 + u / 11, (u + v) / 9};
    return float(uint8_t(127.5 + 100 * std::sin(phase[channel]))) / 255;
}

struct Effect {
    Properties properties;
    std::vector<std::unique_ptr<Parameter>> parameters;
    Properties parameter_set;
    std::vector<std::unique_ptr<Clip>> clips;
    std::string context;
    double scale = 1;
    std::unique_ptr<Image> output;  // of the render at work

    Parameter& parameter(const std::string& name) {
        for (auto& parameter : parameters)
            if (parameter->name == name) return *parameter;
        std::fprintf(stderr, "no parameter %s\n", name.c_str());
        std::abort();
    }
    Clip* clip(const std::string& name) {
        for (auto& clip : clips)
            if (clip->name == name) return clip.get();
        return nullptr;
    }
};

// ---- the suites ----

using Handle = void*;
inline Properties* set_of(Handle handle) { return static_cast<Properties*>(handle); }

template <auto Member, class T>
int set_value(Handle handle, const char* name, int index, T value) {
    Guard guard(lock);
    if (!handle) return BAD_HANDLE;
    if (index < 0) return BAD_INDEX;
    Value& place = set_of(handle)->at(name, size_t(index));
    if constexpr (std::is_same_v<T, const char*>) {
        CHECK(value);
    }
    place.*Member = value;
    return OK;
}
template <auto Member, class T>
int get_value(Handle handle, const char* name, int index, T* value) {
    Guard guard(lock);
    if (!handle) return BAD_HANDLE;
    const Value* found = set_of(handle)->find(name, index);
    if (!found) return UNKNOWN;
    if constexpr (std::is_same_v<T, char*>) {
        *value = const_cast<char*>(found->s.c_str());
    } else {
        *value = found->*Member;
    }
    return OK;
}
inline int no_many(Handle, const char*, int, const void*) { return FAILED; }
inline int reset(Handle, const char*) { return OK; }
inline int dimension(Handle handle, const char* name, int* count) {
    *count = set_of(handle)->count(name);
    return OK;
}

inline const void* property_suite[] = {
    (void*)&set_value<&Value::p, void*>, (void*)&set_value<&Value::s, const char*>,
    (void*)&set_value<&Value::d, double>, (void*)&set_value<&Value::i, int>,
    (void*)&no_many, (void*)&no_many, (void*)&no_many, (void*)&no_many,
    (void*)&get_value<&Value::p, void*>, (void*)&get_value<&Value::s, char*>,
    (void*)&get_value<&Value::d, double>, (void*)&get_value<&Value::i, int>,
    (void*)&no_many, (void*)&no_many, (void*)&no_many, (void*)&no_many,
    (void*)&reset, (void*)&dimension,
};

inline int effect_properties(Handle effect, Handle* properties) {
    *properties = &static_cast<Effect*>(effect)->properties;
    return OK;
}
inline int effect_parameters(Handle effect, Handle* parameters) {
    *parameters = effect;
    return OK;
}
inline int define_clip(Handle handle, const char* name, Handle* properties) {
    auto* effect = static_cast<Effect*>(handle);
    effect->clips.push_back(std::make_unique<Clip>());
    effect->clips.back()->name = name;
    effect->clips.back()->effect = effect;
    if (properties) *properties = &effect->clips.back()->properties;
    return OK;
}
inline int clip_handle(Handle handle, const char* name, Handle* clip, Handle* properties) {
    Clip* found = static_cast<Effect*>(handle)->clip(name);
    if (!found) return UNKNOWN;
    *clip = found;
    if (properties) *properties = &found->properties;
    return OK;
}
inline int clip_properties(Handle clip, Handle* properties) {
    *properties = &static_cast<Clip*>(clip)->properties;
    return OK;
}
inline Range pixels_of(Rect rect, double scale) {
    return {int(std::floor(rect.x1 * scale)), int(std::floor(rect.y1 * scale)), int(std::ceil(rect.x2 * scale)),
            int(std::ceil(rect.y2 * scale))};
}
inline int clip_image(Handle handle, double time, const Rect*, Handle* image) {
    auto* clip = static_cast<Clip*>(handle);
    Effect& effect = *clip->effect;
    Range whole = pixels_of(setup.region, effect.scale);
    Image* made;
    if (clip->name == "Output") {
        if (!effect.output) return FAILED;
        made = effect.output.get();
        counts.images++;
        *image = &made->properties;
        return OK;
    }
    counts.fetched++;
    if (!setup.frames_in_changes && !rendering) return FAILED;
    if (clip->name == "Source" && setup.failing.count(int(time))) return FAILED;
    if (clip->name == "Condition" && !setup.condition) return FAILED;
    int b = setup.border;
    made = new Image(setup.format, {whole.x1 - b, whole.y1 - b, whole.x2 + b, whole.y2 + b}, whole, effect.scale);
    for (int y = made->bounds.y1; y < made->bounds.y2; y++)
        for (int x = made->bounds.x1; x < made->bounds.x2; x++)
            for (int channel = 0; channel < setup.format.samples; channel++)
                made->put(x, y, channel, setup.pixel(int(time), x, y, channel));
    made->properties.at("test.image").p = made;
    counts.images++;
    *image = &made->properties;
    return OK;
}
inline int release_image(Handle handle) {
    counts.images--;
    const Value* made = set_of(handle)->find("test.image", 0);
    if (auto* image = made ? static_cast<Image*>(made->p) : nullptr) delete image;
    return OK;
}
inline int clip_region(Handle, double, Rect* rect) {
    *rect = setup.region;
    return OK;
}
inline int aborted(Handle) {
    int calls = counts.aborts++;
    return setup.abort_after >= 0 && calls >= setup.abort_after;
}
inline int no_memory(Handle, size_t, Handle*) { return FAILED; }

inline const void* effect_suite[] = {
    (void*)&effect_properties, (void*)&effect_parameters, (void*)&define_clip, (void*)&clip_handle,
    (void*)&clip_properties, (void*)&clip_image, (void*)&release_image, (void*)&clip_region, (void*)&aborted,
    (void*)&no_memory, (void*)&no_memory, (void*)&no_memory, (void*)&no_memory,
};

inline int define_parameter(Handle handle, const char* type, const char* name, Handle* properties) {
    auto* effect = static_cast<Effect*>(handle);
    auto parameter = std::make_unique<Parameter>();
    parameter->type = type;
    parameter->name = name;
    *properties = &parameter->properties;
    effect->parameters.push_back(std::move(parameter));
    return OK;
}
inline int parameter_handle(Handle handle, const char* name, Handle* parameter, Handle* properties) {
    for (auto& found : static_cast<Effect*>(handle)->parameters)
        if (found->name == name) {
            *parameter = found.get();
            if (properties) *properties = &found->properties;
            return OK;
        }
    return UNKNOWN;
}
inline int parameter_properties(Handle parameter, Handle* properties) {
    *properties = &static_cast<Parameter*>(parameter)->properties;
    return OK;
}
inline bool is_text(const Parameter& parameter) { return parameter.type == "OfxParamTypeString"; }
inline bool is_double(const Parameter& parameter) { return parameter.type == "OfxParamTypeDouble"; }
inline int read_parameter(Parameter& parameter, va_list list) {
    Guard guard(lock);
    // The text that a plugin was given lives until it asks again.
    thread_local std::string given;
    if (is_text(parameter)) {
        given = parameter.value.s;
        *va_arg(list, char**) = const_cast<char*>(given.c_str());
    } else if (is_double(parameter)) {
        *va_arg(list, double*) = parameter.value.d;
    } else {
        *va_arg(list, int*) = parameter.value.i;
    }
    return OK;
}
inline int get_parameter(Handle handle, ...) {
    va_list list;
    va_start(list, handle);
    int status = read_parameter(*static_cast<Parameter*>(handle), list);
    va_end(list);
    return status;
}
inline int get_parameter_at(Handle handle, double time, ...) {
    va_list list;
    va_start(list, time);
    int status = read_parameter(*static_cast<Parameter*>(handle), list);
    va_end(list);
    return status;
}
inline int set_parameter(Handle handle, ...) {
    // A render is no place to set parameters, says the specification; another thread may render at the moment.
    Guard guard(lock);
    auto& parameter = *static_cast<Parameter*>(handle);
    va_list list;
    va_start(list, handle);
    if (is_text(parameter)) {
        parameter.value.s = va_arg(list, char*);
    } else if (is_double(parameter)) {
        parameter.value.d = va_arg(list, double);
    } else {
        parameter.value.i = va_arg(list, int);
    }
    va_end(list);
    parameter.sets++;
    return OK;
}
inline int no_parameter(Handle, ...) { return FAILED; }

inline const void* parameter_suite[] = {
    (void*)&define_parameter, (void*)&parameter_handle, (void*)&effect_properties, (void*)&parameter_properties,
    (void*)&get_parameter, (void*)&get_parameter_at, (void*)&no_parameter, (void*)&no_parameter,
    (void*)&set_parameter, (void*)&no_parameter, (void*)&no_parameter, (void*)&no_parameter, (void*)&no_parameter,
    (void*)&no_parameter, (void*)&no_parameter, (void*)&no_parameter, (void*)&no_parameter, (void*)&no_parameter,
};

inline std::string printed(const char* format, va_list list) {
    char text[4096];
    std::vsnprintf(text, sizeof text, format, list);
    return text;
}
inline int show(std::atomic<int>& count, const char* format, va_list list) {
    Guard guard(lock);
    counts.last_message = printed(format, list);
    count++;
    return OK;
}
inline int message_box(Handle, const char*, const char*, const char* format, ...) {
    va_list list;
    va_start(list, format);
    show(counts.boxes, format, list);
    va_end(list);
    return OK;
}
inline int persistent_message(Handle, const char*, const char*, const char* format, ...) {
    va_list list;
    va_start(list, format);
    show(counts.persistent, format, list);
    va_end(list);
    return OK;
}
inline int clear_message(Handle) {
    counts.cleared++;
    return OK;
}
inline const void* message_suite_v1[] = {(void*)&message_box};
inline const void* message_suite_v2[] = {(void*)&message_box, (void*)&persistent_message, (void*)&clear_message};
inline const void* message_suite_null[] = {nullptr, nullptr, nullptr};

inline int progress_start(Handle, const char* text, const char*) {
    CHECK(text && *text);
    counts.dialogs++;
    return OK;
}
inline int progress_start_v1(Handle effect, const char* text) { return progress_start(effect, text, nullptr); }
inline int progress_update(Handle, double share) {
    CHECK(share >= 0 && share <= 1);
    counts.progress++;
    return share >= setup.cancel_at ? NO : OK;
}
inline int progress_end(Handle) {
    counts.dialogs--;
    return OK;
}
inline const void* progress_suite_v1[] = {(void*)&progress_start_v1, (void*)&progress_update, (void*)&progress_end};
inline const void* progress_suite_v2[] = {(void*)&progress_start, (void*)&progress_update, (void*)&progress_end};

inline const void* fetch(Handle, const char* name_, int version) {
    std::string name = name_;
    if (name == "OfxPropertySuite" && version == 1) return property_suite;
    if (name == "OfxImageEffectSuite" && version == 1) return effect_suite;
    if (name == "OfxParameterSuite" && version == 1) return parameter_suite;
    if (name == "OfxMessageSuite" && version == 1) return setup.messages == Setup::NONE ? nullptr : message_suite_v1;
    if (name == "OfxMessageSuite" && version == 2) {
        if (setup.messages == Setup::NULL_V2) return message_suite_null;
        return setup.messages == Setup::V2 ? message_suite_v2 : nullptr;
    }
    if (name == "OfxProgressSuite" && version == 1) return setup.progress1 ? progress_suite_v1 : nullptr;
    if (name == "OfxProgressSuite" && version == 2) return setup.progress2 ? progress_suite_v2 : nullptr;
    return nullptr;
}

// ---- the plugin ----

struct HostStructure {
    void* properties;
    const void* (*fetch)(Handle, const char*, int);
};
struct PluginStructure {
    const char* api;
    int api_version;
    const char* identifier;
    unsigned major, minor;
    void (*set_host)(HostStructure*);
    int (*entry)(const char*, const void*, Handle, Handle);
};

class Plugin {
  public:
    explicit Plugin(const std::string& file) {
        library_ = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!library_) std::fprintf(stderr, "%s\n", dlerror());
        CHECK(library_);
        auto number = reinterpret_cast<int (*)()>(dlsym(library_, "OfxGetNumberOfPlugins"));
        auto get = reinterpret_cast<PluginStructure* (*)(int)>(dlsym(library_, "OfxGetPlugin"));
        auto set = reinterpret_cast<int (*)(HostStructure*)>(dlsym(library_, "OfxSetHost"));
        CHECK(number && get && set && number() == 1 && get(1) == nullptr && get(-1) == nullptr);
        properties_.set("OfxPropName", setup.name);
        properties_.set("OfxImageEffectPropTemporalClipAccess", {setup.temporal ? 1. : 0.});
        host_ = {&properties_, &fetch};
        CHECK(set(&host_) == OK);
        plugin_ = get(0);
        CHECK(std::string(plugin_->api) == "OfxImageEffectPluginAPI" && plugin_->api_version == 1);
        plugin_->set_host(&host_);
    }
    ~Plugin() { dlclose(library_); }

    int act(const char* action, Effect* effect = nullptr, Properties* in = nullptr, Properties* out = nullptr) {
        return plugin_->entry(action, effect, in, out);
    }
    void load() { CHECK(act("OfxActionLoad") == OK); }
    void unload() { CHECK(act("OfxActionUnload") == OK); }

    std::unique_ptr<Effect> describe() {
        auto effect = std::make_unique<Effect>();
        CHECK(act("OfxActionDescribe", effect.get()) == OK);
        return effect;
    }
    std::unique_ptr<Effect> describe(const std::string& context) {
        auto effect = describe();
        effect->context = context;
        Properties in;
        in.set("OfxImageEffectPropContext", context);
        CHECK(act("OfxImageEffectActionDescribeInContext", effect.get(), &in) == OK);
        return effect;
    }
    // An instance, with the values of a saved project.
    std::unique_ptr<Effect> create(const std::string& context, const std::map<std::string, Value>& saved = {}) {
        auto effect = describe(context);
        effect->properties.set("OfxImageEffectPropContext", context);
        effect->properties.set("OfxImageEffectInstancePropEffectDuration", {setup.last - setup.first + 1});
        for (auto& clip : effect->clips) {
            bool connected = clip->name != "Condition" || setup.condition;
            clip->properties.set("OfxImageClipPropConnected", {connected ? 1. : 0.});
            clip->properties.set("OfxImageEffectPropFrameRange", {setup.first, setup.last});
        }
        for (auto& parameter : effect->parameters) {
            auto value = saved.find(parameter->name);
            if (value != saved.end() && parameter->properties.find("OfxParamPropPersistant", 0)->i) {
                parameter->value = value->second;
            } else if (const Value* initial = parameter->properties.find("OfxParamPropDefault", 0)) {
                parameter->value = *initial;
            }
        }
        CHECK(act("OfxActionCreateInstance", effect.get()) == OK);
        return effect;
    }
    void destroy(std::unique_ptr<Effect>& effect) {
        CHECK(act("OfxActionDestroyInstance", effect.get()) == OK);
        effect.reset();
    }
    // The user changes a parameter, or presses a button.
    void change(Effect& effect, const std::string& name, double time = 0) {
        Properties in;
        in.set("OfxPropType", "OfxTypeParameter");
        in.set("OfxPropName", name);
        in.set("OfxPropChangeReason", "OfxChangeUserEdited");
        in.set("OfxPropTime", {time});
        in.set("OfxImageEffectPropRenderScale", {1, 1});
        act("OfxActionBeginInstanceChanged", &effect, &in);
        CHECK(act("OfxActionInstanceChanged", &effect, &in) == OK);
        act("OfxActionEndInstanceChanged", &effect, &in);
        CHECK(counts.images == 0 && counts.dialogs == 0);
    }
    template <class T>
    void set(Effect& effect, const std::string& name, T value) {
        {
            Guard guard(lock);
            Value& place = effect.parameter(name).value;
            if constexpr (std::is_convertible_v<T, std::string>) {
                place.s = value;
            } else {
                place.d = double(value);
                place.i = int(value);
            }
        }
        change(effect, name);
    }
    // Renders a window (all of the picture unless given) as hosts do, asking first what is needed.
    std::unique_ptr<Image> render(Effect& effect, double time, double scale = 1, const Range* part = nullptr) {
        effect.scale = scale;
        Range whole = pixels_of(setup.region, scale);
        Properties in, identity, needed;
        in.set("OfxPropTime", {time});
        in.set("OfxImageEffectPropRenderScale", {scale, scale});
        in.set("OfxImageEffectPropFieldToRender", "OfxImageFieldNone");
        Range window = part ? *part : whole;
        in.set("OfxImageEffectPropRenderWindow",
               {double(window.x1), double(window.y1), double(window.x2), double(window.y2)});
        was_identity = act("OfxImageEffectActionIsIdentity", &effect, &in, &identity) == OK;
        if (was_identity) CHECK(identity.text("OfxPropName") == "Source" && identity.find("OfxPropTime", 0)->d == time);
        act("OfxImageEffectActionGetFramesNeeded", &effect, &in, &needed);
        frames_needed = needed.count("OfxImageClipPropFrameRange_Source") / 2;
        effect.output = std::make_unique<Image>(setup.format, whole, whole, scale);
        rendering = true;
        int status = act("OfxImageEffectActionRender", &effect, &in);
        rendering = false;
        CHECK(status == OK && counts.images == 0);
        CHECK(effect.output->untouched_outside(window));
        return std::move(effect.output);
    }
    bool was_identity = false;
    int frames_needed = 0;

  private:
    void* library_;
    Properties properties_;
    HostStructure host_{};
    PluginStructure* plugin_;
};

}  // namespace ofx
