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

# stop_cluster_after PID: for a test that is killed and cannot clean up. Runs aside, as nobody's child.
stop_cluster_after() {
  while kill -0 "$1"; do env -u SLURM_CONF sleep 1; done
  stop_cluster
  rm -rf "$(dirname "$SLURM_CONF")"
}

# start_cluster FOLDER: a new folder, which should be gone after stop_cluster.
start_cluster() {
  mkdir -p "$1/state" "$1/spool-n1" "$1/spool-n2"
  write_slurm_conf "$1"
  export SLURM_CONF=$1/slurm.conf
  (stop_cluster_after $$ &) >/dev/null 2>&1 </dev/null
  slurmctld -D -c >"$1/slurmctld.out" 2>&1 &
  slurmd -D -N n1 >"$1/n1.out" 2>&1 &
  slurmd -D -N n2 >"$1/n2.out" 2>&1 &
  local deadline=$((SECONDS + 20))
  while [ $SECONDS -lt $deadline ]; do
    if [ "$(timeout 2 sinfo -h -N -p main -o %t 2>/dev/null | grep -c '^idle$')" = 2 ]; then return; fi
    sleep 0.2
  done
  tail -n 20 "$1"/*.out "$1"/*.log
  fail "the cluster did not start"
}

# The daemons, and whatever their jobs started, are known by their environment. slurmstepd overwrites its own, and is
# known by the log that it writes to.
cluster_processes() {
  local process
  {
    grep -lszxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ || true
    for process in $(grep -lsx slurmstepd /proc/[0-9]*/comm || true); do
      if ls -l "${process%comm}fd" 2>/dev/null | grep -qF " $(dirname "$SLURM_CONF")/"; then echo "$process"; fi
    done
  } | cut -d / -f 3
}

# Not by Slurm's own means, which need a cluster that is well.
stop_cluster() {
  local signal processes
  [ -n "${SLURM_CONF:-}" ] || return 0
  for signal in TERM KILL KILL; do
    processes=$(cluster_processes)
    [ -n "$processes" ] || return 0
    # shellcheck disable=SC2086
    kill -$signal $processes 2>/dev/null || true
    for _ in $(seq 20); do
      [ -n "$(cluster_processes)" ] || return 0
      sleep 0.1
    done
  done
  fail "processes of the cluster are left: $(cluster_processes)"
}
