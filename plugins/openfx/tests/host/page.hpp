// Draws the page of parameters from what the plugin has described, as an SVG picture.
#pragma once

#include <fstream>
#include <sstream>

#include "host.hpp"

namespace ofx {

inline std::string escaped(const std::string& text) {
    std::string result;
    for (char letter : text) {
        if (letter == '<') result += "&lt;";
        else if (letter == '&') result += "&amp;";
        else result += letter;
    }
    return result;
}

inline std::string shown(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

class Page {
  public:
    void group(const std::string& label) {
        y_ += 8;
        body_ << "<rect x='0' y='" << y_ << "' width='640' height='24' fill='#3a3a40'/>";
        text(12, label, "#fff' font-weight='bold");
        y_ += 28;
    }
    void row(const Parameter& parameter) {
        const Properties& properties = parameter.properties;
        std::string label = properties.text(kOfxPropLabel);
        if (parameter.type == kOfxParamTypePushButton) {
            box(220, 140, "#55555e");
            text(290, label, "#fff' text-anchor='middle");
        } else {
            text(208, label, "#ccc' text-anchor='end");
            if (parameter.type == kOfxParamTypeInteger) {
                number(properties, &Value::i);
            } else if (parameter.type == kOfxParamTypeDouble) {
                number(properties, &Value::d);
            } else if (parameter.type == kOfxParamTypeBoolean) {
                bool on = properties.find(kOfxParamPropDefault, 0)->i;
                box(220, 18, "#222226");
                if (on) text(229, "\u2713", "#8cf' text-anchor='middle");
            } else if (parameter.type == kOfxParamTypeChoice) {
                box(220, 240, "#222226");
                int chosen = properties.find(kOfxParamPropDefault, 0)->i;
                text(230, properties.find(kOfxParamPropChoiceOption, chosen)->s, "#eee");
                text(450, "\u25be", "#aaa' text-anchor='end");
            } else {
                std::string mode = properties.text(kOfxParamPropStringMode);
                bool lines = mode == kOfxParamStringIsMultiLine, label_only = mode == kOfxParamStringIsLabel;
                bool path = mode == kOfxParamStringIsFilePath || mode == kOfxParamStringIsDirectoryPath;
                if (label_only) {
                    text(220, "Ready: write a prompt, then press Generate.", "#8cf");
                } else {
                    box(220, path ? 300 : 400, "#222226", lines ? 40 : 18);
                    if (path) {
                        box(528, 92, "#55555e");
                        text(574, "Browse\u2026", "#fff' text-anchor='middle");
                    }
                    if (lines) y_ += 22;
                }
            }
        }
        y_ += 24;
    }
    void write(const std::string& file) const {
        std::ofstream out(file);
        out << "<svg xmlns='http://www.w3.org/2000/svg' width='640' height='" << y_ + 8 << "' viewBox='0 0 640 " << y_ + 8
            << "' font-family='DejaVu Sans, Helvetica, Arial, sans-serif' font-size='12'>\n"
            << "<title>The parameters of MotionClone, with their defaults</title>\n"
            << "<rect width='100%' height='100%' fill='#2b2b30'/>\n"
            << body_.str() << "</svg>\n";
    }

  private:
    void box(int x, int width, const char* colour, int height = 18) {
        body_ << "<rect x='" << x << "' y='" << y_ + 2 << "' width='" << width << "' height='" << height << "' rx='3' fill='"
              << colour << "' stroke='#111'/>";
    }
    void text(int x, const std::string& words, const std::string& style) {
        body_ << "<text x='" << x << "' y='" << y_ + 15 << "' fill='" << style << "'>" << escaped(words) << "</text>\n";
    }
    template <class T>
    void number(const Properties& properties, T Value::* member) {
        auto value = [&](const char* name) { return double(properties.find(name, 0)->*member); };
        double low = value(kOfxParamPropDisplayMin), high = value(kOfxParamPropDisplayMax);
        double place = std::fmin(std::fmax((value(kOfxParamPropDefault) - low) / (high - low), 0), 1);
        box(220, 80, "#222226");
        text(292, shown(value(kOfxParamPropDefault)), "#eee' text-anchor='end");
        body_ << "<rect x='316' y='" << y_ + 9 << "' width='220' height='4' fill='#111'/>"
              << "<circle cx='" << 316 + int(220 * place) << "' cy='" << y_ + 11 << "' r='6' fill='#8cf'/>";
        text(546, shown(low) + " \u2013 " + shown(high), "#888");
    }

    std::ostringstream body_;
    int y_ = 0;
};

inline void draw_page(const Effect& effect, const std::string& file) {
    Page page;
    for (auto& group : effect.parameters) {
        if (group->type != kOfxParamTypeGroup || group->properties.find(kOfxParamPropSecret, 0)->i) continue;
        page.group(group->properties.text(kOfxPropLabel));
        for (auto& parameter : effect.parameters)
            if (parameter->properties.text(kOfxParamPropParent) == group->name) page.row(*parameter);
    }
    page.write(file);
}

}  // namespace ofx
