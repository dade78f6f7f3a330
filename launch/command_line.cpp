#include "launch/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include <utility>

namespace smoe {
namespace {

std::string usage_message(const CLI::App& app, const CLI::ParseError& error) {
  const auto chosen = app.get_subcommands();
  const std::string command = chosen.empty() ? app.get_name() : app.get_name() + " " + chosen.front()->get_name();
  return fmt::format("{}; {} --help tells more", error.what(), command);
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
