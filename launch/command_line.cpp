#include "launch/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <exception>
#include <utility>

#include "configs/field_text.h"
#include "configs/suggest.h"
#include "configs/user_path.h"
#include "configs/yaml_printer.h"

namespace smoe {
namespace {

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

// What is near an option that the command has not: one of its own, the configuration's key of that name, or the commands
// that do have it.
std::string hint_for(const std::string& option, const CLI::App& command, const CLI::App& app) {
  if (const auto near = nearest(option, option_names(command))) return did_you_mean(near);
  if (command.get_option_no_throw("key=value") != nullptr) {
    std::vector<std::string> keys;
    for (const FieldText& field : describe_fields({})) keys.push_back(field.key);
    std::string key = option.substr(std::min(option.find_first_not_of('-'), option.size()));
    std::replace(key.begin(), key.end(), '-', '_');
    if (const std::string hint = did_you_mean_dotted(key, keys); !hint.empty())
      return hint + " Keys of the configuration are given as KEY=VALUE, without dashes";
  }
  std::vector<std::string> others;
  for (const CLI::App* other : app.get_subcommands([](const CLI::App*) { return true; })) {
    const std::vector<std::string> names = option_names(*other);
    if (std::find(names.begin(), names.end(), option) != names.end())
      others.push_back(app.get_name() + " " + other->get_name());
  }
  return others.empty() ? "" : fmt::format(", as {} has", joined(others));
}

std::string usage_message(const CLI::App& app, const CLI::ParseError& error) {
  const auto chosen = app.get_subcommands();
  if (chosen.empty()) return fmt::format("{}; {} --help tells more", error.what(), app.get_name());
  const CLI::App& command = *chosen.front();
  const std::string name = app.get_name() + " " + command.get_name();
  // The parser would rather complain of what is missing, which an option with a slip in its name often was meant to be.
  for (const std::string& left : command.remaining()) {
    if (!left.starts_with('-')) continue;
    const std::string option = left.substr(0, left.find('='));
    return fmt::format("{} has no option {}{}; {} --help tells more", name, option, hint_for(option, command, app),
                       name);
  }
  return fmt::format("{}; {} --help tells more", error.what(), name);
}

// What the parser calls with each value as it was given: the answer is empty, or what is wrong with it.
std::string expand_in_place(std::string& path) {
  try {
    path = expand_path(path);
    return {};
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace

Option Option::required() const { return Option(option_->required()); }
Option Option::show_default() const { return Option(option_->capture_default_str()); }
Option Option::range(std::int64_t min, std::int64_t max) const { return Option(option_->check(CLI::Range(min, max))); }
Option Option::real_range(double min, double max) const { return Option(option_->check(CLI::Range(min, max))); }
Option Option::one_of(std::vector<std::string> words) const {
  return Option(option_->check(CLI::IsMember(std::move(words))));
}
Option Option::delimiter(char between) const { return Option(option_->delimiter(between)); }
Option Option::excludes(const Option& other) const { return Option(option_->excludes(other.option_)); }
Option Option::needs(const Option& other) const { return Option(option_->needs(other.option_)); }
bool Option::given() const { return static_cast<bool>(*option_); }

std::string Command::name() const { return app_->get_name(); }

template <class Value>
Option Command::option(const std::string& name, Value& value, const std::string& help) const {
  return Option(app_->add_option(name, value, help));
}
template Option Command::option(const std::string&, bool&, const std::string&) const;
template Option Command::option(const std::string&, int&, const std::string&) const;
template Option Command::option(const std::string&, std::int64_t&, const std::string&) const;
template Option Command::option(const std::string&, std::uint64_t&, const std::string&) const;
template Option Command::option(const std::string&, double&, const std::string&) const;
template Option Command::option(const std::string&, std::string&, const std::string&) const;
template Option Command::option(const std::string&, std::vector<std::int32_t>&, const std::string&) const;
template Option Command::option(const std::string&, std::vector<std::string>&, const std::string&) const;

template <class Value>
Option Command::path(const std::string& name, Value& value, const std::string& help) const {
  return Option(app_->add_option(name, value, help)->transform(CLI::Validator(expand_in_place, "")));
}
template Option Command::path(const std::string&, std::string&, const std::string&) const;
template Option Command::path(const std::string&, std::vector<std::string>&, const std::string&) const;

Option Command::flag(const std::string& name, bool& value, const std::string& help) const {
  return Option(app_->add_flag(name, value, help));
}
void Command::takes_anything() const { app_->allow_extras(); }
void Command::before_parsing(std::function<void()> action) const {
  app_->preparse_callback([action = std::move(action)](std::size_t) { action(); });
}
void Command::runs(std::function<void()> action) const { app_->callback(std::move(action)); }

CommandLine::CommandLine(const std::string& description, const std::string& name, const std::string& version)
    : app_(std::make_unique<CLI::App>(description, name)) {
  app_->set_version_flag("--version", version);
  app_->require_subcommand(1);
}
CommandLine::~CommandLine() = default;

Command CommandLine::command(const std::string& name, const std::string& does) {
  return Command(app_->add_subcommand(name, does));
}

std::vector<Command> CommandLine::commands() const {
  std::vector<Command> commands;
  for (CLI::App* command : app_->get_subcommands([](const CLI::App*) { return true; })) commands.emplace_back(command);
  return commands;
}

int CommandLine::run(int argc, char** argv, bool prints) {
  try {
    app_->parse(argc, argv);
    return 0;
  } catch (const EndsWith& end) {
    return end.status();
  } catch (const CLI::Success& request) {  // --help, --version
    return prints ? app_->exit(request) : 0;
  } catch (const CLI::ParseError& error) {
    throw UsageError(usage_message(*app_, error));
  }
}

}  // namespace smoe
