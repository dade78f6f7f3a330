# A Slurm of two nodes, n1 and n2, on this one machine: without root, without services, with everything in one folder.
# Sourced. start_cluster FOLDER; stop_cluster ends it and whatever it started.

export PATH=$PATH:/usr/sbin:/sbin  # where the daemons are

has_slurm() { command -v slurmctld && command -v slurmd && command -v sbatch && command -v mpirun; } >/dev/null

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Three ports in a row that nobody listens on, below those that systems hand out by themselves.
find_ports() {
  local port
  for _ in $(seq 50); do
    port=$((20000 + RANDOM % 10000))
    if is_free $port && is_free $((port + 1)) && is_free $((port + 2)); then
      echo $port
      return
    fi
  done
  fail "no free ports"
}

write_slurm_conf() {
  local host user port
  host=$(hostname -s) user=$(id -un) port=$(find_ports)
  cat >"$1/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/none
CredType=cred/none
# A requeued job waits until the first start's credential has expired: seconds here, two minutes by default.
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# Both nodes are this machine, whatever it has.
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=2
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=2
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
StateSaveLocation=$1/state
SlurmdSpoolDir=$1/spool-%n
SlurmctldPidFile=$1/slurmctld.pid
SlurmdPidFile=$1/%n.pid
SlurmctldLogFile=$1/slurmctld.log
SlurmdLogFile=$1/%n.log
END
}

# start_cluster FOLDER: a new folder, which should be gone after stop_cluster.
start_cluster() {
  mkdir -p "$1/state" "$1/spool-n1" "$1/spool-n2"
  write_slurm_conf "$1"
  export SLURM_CONF=$1/slurm.conf
  slurmctld -D -c >"$1/slurmctld.out" 2>&1 &
  slurmd -D -N n1 >"$1/n1.out" 2>&1 &
  slurmd -D -N n2 >"$1/n2.out" 2>&1 &
  for _ in $(seq 100); do
    if [ "$(sinfo -h -N -p main -o %t 2>/dev/null | grep -c '^idle$')" = 2 ]; then return; fi
    sleep 0.2
  done
  tail -n 20 "$1"/*.out "$1"/*.log
  fail "the cluster did not start"
}

# Every process of the cluster and of its jobs is known by its environment.
cluster_processes() {
  local environment
  for environment in /proc/[0-9]*/environ; do
    if grep -qzxF "SLURM_CONF=$SLURM_CONF" "$environment" 2>/dev/null; then basename "$(dirname "$environment")"; fi
  done
}

# Not by Slurm's own means, which need a cluster that is well.
stop_cluster() {
  local signal processes
  [ -n "${SLURM_CONF:-}" ] || return 0
  for signal in TERM KILL KILL; do
    processes=$(cluster_processes)
    [ -n "$processes" ] || return 0
    # shellcheck disable=SC2086
    kill -$signal $processes 2>/dev/null
    for _ in $(seq 20); do
      [ -n "$(cluster_processes)" ] || return 0
      sleep 0.1
    done
  done
  fail "processes of the cluster are left: $(cluster_processes)"
}
