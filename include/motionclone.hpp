/**
 * motionclone.h for C++17: objects that destroy themselves, exceptions, and containers. Nothing but calls of the C
 * functions, inline, so it has no ABI of its own. What functions do, which threads may call them and what can go wrong
 * is said in motionclone.h.
 *
 * Objects are moved and not copied, except Motion and Job, whose copies mean the same object. A moved-from object holds
 * none, and its functions throw.
 */
#ifndef MOTIONCLONE_HPP
#define MOTIONCLONE_HPP

#include <cmath>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "motionclone.h"

namespace motionclone {

/** A call that failed: its status, and a sentence for people as what(). */
class Error : public std::runtime_error {
public:
    Error(motionclone_status status, const std::string &text) : std::runtime_error(text), status_(status) {}
    motionclone_status status() const noexcept { return status_; }

private:
    motionclone_status status_;
};

/** Throws what is not OK. */
inline void check(motionclone_status status)
{
    if (status != MOTIONCLONE_STATUS_OK)
        throw Error(status, motionclone_last_error());
}

/** Some elements of somebody's memory; std::span for C++17. */
template <typename T> class Span {
public:
    constexpr Span() noexcept = default;
    constexpr Span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <typename Container, typename = decltype(std::declval<Container &>().data())>
    constexpr Span(Container &container) : data_(container.data()), size_(container.size())
    {
    }
    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t index) const { return data_[index]; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/** Frames of 8-bit RGB in sRGB, rows from the top, without gaps. */
struct Clip {
    std::uint32_t width = 0;
    std::uint32_t height = 0;
    std::vector<std::uint8_t> pixels;

    /** Bytes of a frame. */
    std::size_t frame_size() const noexcept { return std::size_t(width) * height * 3; }
    /** How many frames there are. */
    std::size_t count() const noexcept { return frame_size() == 0 ? 0 : pixels.size() / frame_size(); }
    /** One frame's bytes. */
    Span<const std::uint8_t> frame(std::size_t index) const
    {
        if (index >= count())
            throw std::out_of_range("no such frame");
        return { pixels.data() + index * frame_size(), frame_size() };
    }
};

/** Frames in any layout, set up with the defaults of motionclone_frames_init. */
inline motionclone_frames make_frames()
{
    motionclone_frames frames;
    check(motionclone_frames_init(&frames, sizeof frames));
    return frames;
}

/** Describes 8-bit RGB in the caller's memory, which must live as long as the description is used. */
inline motionclone_frames describe(Span<const std::uint8_t> pixels, std::uint32_t width, std::uint32_t height)
{
    const std::size_t frame = std::size_t(width) * height * 3;
    if (frame == 0 || pixels.empty() || pixels.size() % frame != 0)
        throw Error(MOTIONCLONE_STATUS_INVALID_ARGUMENT, "the memory does not hold whole frames of this size");
    motionclone_frames frames = make_frames();
    /* What is given to functions that read is only read. */
    frames.data = const_cast<std::uint8_t *>(pixels.data());
    frames.count = static_cast<std::uint32_t>(pixels.size() / frame);
    frames.width = width;
    frames.height = height;
    return frames;
}

/** Describes a clip, which must live as long as the description is used. */
inline motionclone_frames describe(const Clip &clip)
{
    return describe({ clip.pixels.data(), clip.pixels.size() }, clip.width, clip.height);
}

/** The library's version. */
inline std::string version() { return motionclone_version(); }

/** Whether the library is one that this header belongs to. */
inline bool fits() noexcept { return motionclone_abi_version() == MOTIONCLONE_ABI_VERSION; }

namespace detail {

/** A handle that is destroyed with its last owner. */
template <typename Handle, motionclone_status (*destroy)(Handle *)> class Shared {
public:
    Shared() = default;
    explicit Shared(Handle handle) : owned_(std::make_shared<Owned>(handle)) {}
    Handle get() const noexcept { return owned_ ? owned_->handle : 0; }

private:
    struct Owned {
        explicit Owned(Handle value) noexcept : handle(value) {}
        Owned(const Owned &) = delete;
        Owned &operator=(const Owned &) = delete;
        ~Owned() { destroy(&handle); }
        Handle handle;
    };
    std::shared_ptr<Owned> owned_;
};

/** Asks for a text's length, then for the text. */
template <typename Function> std::string text(Function function)
{
    std::size_t needed = 0;
    check(function(nullptr, std::size_t(0), &needed));
    std::string text(needed, '\0');
    check(function(&text[0], text.size(), static_cast<std::size_t *>(nullptr)));
    text.resize(needed - 1);
    return text;
}

} // namespace detail

/** The motion of a clip. */
class Motion {
public:
    /** Takes over a handle. */
    explicit Motion(motionclone_motion handle) : handle_(handle) {}

    /** Reads one from a file. */
    static Motion load(const std::string &file)
    {
        motionclone_motion handle = 0;
        check(motionclone_motion_load(file.c_str(), &handle));
        return Motion(handle);
    }
    void save(const std::string &file) const { check(motionclone_motion_save(get(), file.c_str())); }
    motionclone_motion_info info() const
    {
        motionclone_motion_info info;
        check(motionclone_motion_info_init(&info, sizeof info));
        check(motionclone_motion_info_get(get(), &info));
        return info;
    }
    /** All that is known of it, as JSON. */
    std::string describe() const
    {
        return detail::text([this](char *buffer, std::size_t size, std::size_t *needed) {
            return motionclone_motion_describe(get(), buffer, size, needed);
        });
    }
    motionclone_motion get() const noexcept { return handle_.get(); }

private:
    detail::Shared<motionclone_motion, motionclone_motion_destroy> handle_;
};

/** An extraction or a clone; cancelled when its last copy is destroyed before it has ended. */
class Job {
public:
    /** Takes over a handle. */
    explicit Job(motionclone_job handle) : handle_(handle) {}

    motionclone_progress progress() const
    {
        motionclone_progress progress;
        check(motionclone_progress_init(&progress, sizeof progress));
        check(motionclone_job_progress(get(), &progress));
        return progress;
    }
    /** Waits for the end; throws what the job failed with, also when it was cancelled. */
    void wait() const { check(motionclone_job_wait(get(), -1)); }
    /** As wait(), but gives up after a time, and then returns false. */
    bool wait_for(std::chrono::milliseconds time) const
    {
        const auto count = time.count() < 0 ? 0 : time.count();
        const motionclone_status status = motionclone_job_wait(get(), static_cast<std::int64_t>(count));
        if (status == MOTIONCLONE_STATUS_TIMEOUT)
            return false;
        check(status);
        return true;
    }
    void cancel() const { check(motionclone_job_cancel(get())); }
    /** The latest preview, or nothing while there is none. */
    std::optional<Clip> preview() const
    {
        Clip clip;
        const motionclone_status status = take(motionclone_job_preview, clip);
        if (status == MOTIONCLONE_STATUS_NOT_READY)
            return std::nullopt;
        check(status);
        return clip;
    }
    /** The new clip. */
    Clip frames() const
    {
        Clip clip;
        check(take(motionclone_job_frames, clip));
        return clip;
    }
    /** Writes the new clip into memory of the caller, in any layout. */
    void frames(motionclone_frames &frames) const { check(motionclone_job_frames(get(), &frames)); }
    Motion motion() const
    {
        motionclone_motion handle = 0;
        check(motionclone_job_motion(get(), &handle));
        return Motion(handle);
    }
    /** What went wrong in it; empty where nothing did. */
    std::string error() const
    {
        return detail::text([this](char *buffer, std::size_t size, std::size_t *needed) {
            return motionclone_job_error(get(), buffer, size, needed);
        });
    }
    motionclone_job get() const noexcept { return handle_.get(); }

private:
    motionclone_status take(motionclone_status (*function)(motionclone_job, motionclone_frames *), Clip &clip) const
    {
        motionclone_frames frames = make_frames();
        motionclone_status status = function(get(), &frames);
        if (status != MOTIONCLONE_STATUS_OK)
            return status;
        clip.width = frames.width;
        clip.height = frames.height;
        clip.pixels.resize(clip.frame_size() * frames.count);
        frames.data = clip.pixels.data();
        return function(get(), &frames);
    }

    detail::Shared<motionclone_job, motionclone_job_destroy> handle_;
};

/** A model on a device. Its destructor cancels its jobs and waits for them. */
class Engine {
public:
    /** Hears messages with their motionclone_log_level; what it throws is lost. */
    using Log = std::function<void(std::uint32_t, const std::string &)>;

    /** Opens an engine and waits for it. An empty bundle is the embedded one. */
    explicit Engine(const std::string &bundle, motionclone_device_kind kind = MOTIONCLONE_DEVICE_KIND_AUTO,
                    std::uint32_t number = 0, Log log = {}, const std::string &onnxruntime = {})
        : Engine(motionclone_engine_create, bundle, kind, number, std::move(log), onnxruntime)
    {
    }
    /** Begins to open an engine; its first job waits for it. */
    static Engine open(const std::string &bundle, motionclone_device_kind kind = MOTIONCLONE_DEVICE_KIND_AUTO,
                       std::uint32_t number = 0, Log log = {}, const std::string &onnxruntime = {})
    {
        return Engine(motionclone_engine_open, bundle, kind, number, std::move(log), onnxruntime);
    }
    /** Waits until it is open, and returns false when that takes longer; throws what opening failed with. */
    bool wait_for(std::chrono::milliseconds time) const
    {
        const auto count = time.count() < 0 ? 0 : time.count();
        const motionclone_status status = motionclone_engine_wait(get(), static_cast<std::int64_t>(count));
        if (status == MOTIONCLONE_STATUS_TIMEOUT)
            return false;
        check(status);
        return true;
    }
    Engine(Engine &&other) noexcept : log_(std::move(other.log_)), handle_(std::exchange(other.handle_, 0)) {}
    Engine &operator=(Engine &&other) noexcept
    {
        Engine old(std::move(*this));
        log_ = std::move(other.log_);
        handle_ = std::exchange(other.handle_, 0);
        return *this;
    }
    ~Engine() { motionclone_engine_destroy(&handle_); }

    /** The device in use. */
    motionclone_device device() const
    {
        motionclone_device device;
        check(motionclone_device_init(&device, sizeof device));
        check(motionclone_engine_device(get(), &device));
        return device;
    }
    /** The model's defaults. Texts in them are the caller's and must live until a job is started. */
    motionclone_settings settings() const
    {
        motionclone_settings settings;
        check(motionclone_settings_init(&settings, sizeof settings, get()));
        return settings;
    }
    Job extract(const motionclone_frames &reference, const motionclone_settings &settings) const
    {
        motionclone_job job = 0;
        check(motionclone_job_extract(get(), &reference, &settings, &job));
        return Job(job);
    }
    Job clone(const motionclone_frames &reference, const motionclone_settings &settings) const
    {
        motionclone_job job = 0;
        check(motionclone_job_clone(get(), &reference, &settings, &job));
        return Job(job);
    }
    Job clone(const Motion &motion, const motionclone_settings &settings) const
    {
        motionclone_job job = 0;
        check(motionclone_job_clone_motion(get(), motion.get(), &settings, &job));
        return Job(job);
    }
    motionclone_engine get() const noexcept { return handle_; }

private:
    using Make = motionclone_status (*)(const char *, const motionclone_engine_options *, motionclone_engine *);

    Engine(Make make, const std::string &bundle, motionclone_device_kind kind, std::uint32_t number, Log log,
           const std::string &onnxruntime)
        : log_(std::make_unique<Log>(std::move(log)))
    {
        motionclone_engine_options options;
        check(motionclone_engine_options_init(&options, sizeof options));
        options.device_kind = kind;
        options.device_number = number;
        options.onnxruntime = onnxruntime.empty() ? nullptr : onnxruntime.c_str();
        if (*log_) {
            options.log = [](std::uint32_t level, const char *message, void *user_data) {
                try {
                    (*static_cast<Log *>(user_data))(level, message);
                } catch (...) {
                    /* No exception may pass through the library. */
                }
            };
            options.log_user_data = log_.get();
        }
        check(make(bundle.empty() ? nullptr : bundle.c_str(), &options, &handle_));
    }

    std::unique_ptr<Log> log_;
    motionclone_engine handle_ = 0;
};

/** The devices that an engine can be made on. */
inline std::vector<motionclone_device> devices(const std::string &onnxruntime = {})
{
    const char *library = onnxruntime.empty() ? nullptr : onnxruntime.c_str();
    std::size_t count = 0;
    check(motionclone_devices(library, nullptr, 0, &count));
    std::vector<motionclone_device> devices(count);
    for (motionclone_device &device : devices)
        check(motionclone_device_init(&device, sizeof device));
    check(motionclone_devices(library, devices.data(), devices.size(), &count));
    devices.resize(count < devices.size() ? count : devices.size());
    return devices;
}

} // namespace motionclone

#endif
