// launch/train.mpijob.yaml and train.sky.yaml: not run here, but read, and their numbers and commands held against each other. The
// schemas that they belong to are the operator's CRD and SkyPilot's own; docs/guide.md says against which versions they were held.
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <string>
#include <vector>

namespace smoe {
namespace {

YAML::Node launch_file(const std::string& name) { return YAML::LoadFile(SMOE_SOURCE_DIR "/launch/" + name); }

TEST(ClusterFiles, TheMpiJobStartsARankForEachGpuOfItsWorkers) {
  const YAML::Node job = launch_file("train.mpijob.yaml");
  EXPECT_EQ(job["apiVersion"].as<std::string>(), "kubeflow.org/v2beta1");
  EXPECT_EQ(job["kind"].as<std::string>(), "MPIJob");
  const YAML::Node spec = job["spec"], launcher = spec["mpiReplicaSpecs"]["Launcher"],
                   worker = spec["mpiReplicaSpecs"]["Worker"];
  EXPECT_EQ(spec["mpiImplementation"].as<std::string>(), "OpenMPI");
  const YAML::Node start = launcher["template"]["spec"]["containers"][0],
                   host = worker["template"]["spec"]["containers"][0];
  const int slots = spec["slotsPerWorker"].as<int>();
  EXPECT_EQ(host["resources"]["limits"]["nvidia.com/gpu"].as<int>(), slots);
  EXPECT_EQ(start["image"].as<std::string>(), host["image"].as<std::string>());
  const auto command = start["command"].as<std::vector<std::string>>();
  const auto arguments = start["args"].as<std::vector<std::string>>();
  ASSERT_EQ(command, (std::vector<std::string>{"/opt/smoe/launch/mpirun"}));
  ASSERT_GT(arguments.size(), 5u);
  EXPECT_EQ(arguments[0], "-n");
  EXPECT_EQ(arguments[1], std::to_string(slots * worker["replicas"].as<int>()));
  const auto smoe = std::find(arguments.begin(), arguments.end(), "/opt/smoe/smoe");
  ASSERT_NE(smoe, arguments.end());
  EXPECT_EQ(smoe[1], "train");
  EXPECT_EQ(std::count(smoe, arguments.end(), "train.device=cuda"), 1);
  EXPECT_EQ(std::count(smoe, arguments.end(), "parallel.transport=nccl"), 1);
  // Told to end, it saves and ends with 18, which must start it again; and workers are not started twice.
  EXPECT_EQ(launcher["restartPolicy"].as<std::string>(), "OnFailure");
  EXPECT_GE(launcher["template"]["spec"]["terminationGracePeriodSeconds"].as<int>(), 60);
  // What a container mounts is a volume of its pod.
  for (const YAML::Node& pod : {launcher["template"]["spec"], worker["template"]["spec"]})
    for (const YAML::Node& mount : pod["containers"][0]["volumeMounts"]) {
      const auto name = mount["name"].as<std::string>();
      EXPECT_TRUE(std::any_of(pod["volumes"].begin(), pod["volumes"].end(), [&](const YAML::Node& volume) {
        return volume["name"].as<std::string>() == name;
      })) << name;
    }
}

TEST(ClusterFiles, TheSkyPilotTaskStartsTheSameCommand) {
  const YAML::Node task = launch_file("train.sky.yaml");
  EXPECT_GT(task["num_nodes"].as<int>(), 1);
  EXPECT_EQ(task["resources"]["accelerators"].as<std::string>(), "H100:8");
  const auto run = task["run"].as<std::string>();
  for (const char* part :
       {"launch/mpirun -n \"$ranks\"", "smoe-bundle/smoe train \"$CONFIG\" train.device=cuda parallel.transport=nccl"})
    EXPECT_NE(run.find(part), std::string::npos) << part;
  for (const char* variable : {"CONFIG", "EP"}) EXPECT_TRUE(task["envs"][variable].IsScalar()) << variable;
}

}  // namespace
}  // namespace smoe
