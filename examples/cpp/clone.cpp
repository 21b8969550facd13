// Clones the motion of a clip that is drawn here: frames in, progress, frames out; then cancels a second clone.
//
//     clone BUNDLE OUT [WIDTH HEIGHT FRAMES STEPS]
//
// OUT gets the new clip's frames, one after another, as 8-bit RGB without a header.
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include <motionclone.hpp>

// Soft stripes that move to the right.
static motionclone::Clip draw(std::uint32_t width, std::uint32_t height, std::uint32_t count)
{
    motionclone::Clip clip{ width, height, {} };
    for (std::uint32_t t = 0; t < count; t++)
        for (std::uint32_t y = 0; y < height; y++)
            for (std::uint32_t x = 0; x < width; x++) {
                const double u = double(x) - 3.0 * t, v = y;
                for (const double wave : { u / 7.0, v / 5.0 + u / 11.0, (u + v) / 9.0 })
                    clip.pixels.push_back(static_cast<std::uint8_t>(127.5 + 100.0 * std::sin(wave)));
            }
    return clip;
}

static int run(const std::vector<std::string> &arguments)
{
    const auto log = [](std::uint32_t, const std::string &message) { std::cerr << message << '\n'; };
    const motionclone::Engine engine(arguments[0], MOTIONCLONE_DEVICE_KIND_CPU, 0, log);
    motionclone_settings settings = engine.settings();
    settings.prompt = "Relics on the seabed";
    if (arguments.size() == 6) {
        const auto number = [&](std::size_t index) { return static_cast<std::uint32_t>(std::stoul(arguments[index])); };
        settings.width = number(2);
        settings.height = number(3);
        settings.frames = number(4);
        settings.steps = number(5);
        settings.guidance_steps = settings.steps / 2;
        settings.warm_up = settings.cool_up = settings.steps / 10;
    }
    const motionclone::Clip reference = draw(96, 64, 12);
    const motionclone::Job job = engine.clone(motionclone::describe(reference), settings);
    while (!job.wait_for(std::chrono::milliseconds(100))) {
        const motionclone_progress progress = job.progress();
        std::cout << "stage " << progress.stage << ", step " << progress.step << " of " << progress.total << '\n';
    }
    const motionclone::Clip clip = job.frames();
    std::ofstream file(arguments[1], std::ios::binary);
    file.write(reinterpret_cast<const char *>(clip.pixels.data()), static_cast<std::streamsize>(clip.pixels.size()));
    if (!file.flush()) {
        std::cerr << arguments[1] << ": cannot be written\n";
        return EXIT_FAILURE;
    }
    std::cout << clip.count() << " frames, first byte of the last: " << int(clip.frame(clip.count() - 1)[0]) << '\n';

    // The motion serves other clones; this one is given up.
    settings.seed++;
    const motionclone::Job second = engine.clone(job.motion(), settings);
    second.cancel();
    try {
        second.wait();
    } catch (const motionclone::Error &error) {
        if (error.status() != MOTIONCLONE_STATUS_CANCELLED)
            throw;
        std::cout << "the second clone: " << error.what() << '\n';
    }
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 7) {
        std::cerr << "usage: " << argv[0] << " BUNDLE OUT [WIDTH HEIGHT FRAMES STEPS]\n";
        return 2;
    }
    if (!motionclone::fits()) {
        std::cerr << "this program was made for another version than " << motionclone::version() << '\n';
        return EXIT_FAILURE;
    }
    try {
        return run({ argv + 1, argv + argc });
    } catch (const std::exception &error) {
        std::cerr << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
