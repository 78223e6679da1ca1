#!/usr/bin/env bash
# Labels a store by one process per node. Submit: sbatch --nodes 4 docs/examples/slurm.sh
#SBATCH --job-name vaplan
#SBATCH --ntasks-per-node 1
#SBATCH --cpus-per-task 16
set -euo pipefail

data=${DATA:-/shared/llp}       # annotations and features, on the shared file system
store=${STORE:-/shared/store}

# The nodes of the job, in the order of the tasks, with a port.
VAPLAN_HOSTS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed 's/$/:2101/' | paste -sd, -)
# One secret for this job, readable by its owner only.
VAPLAN_SECRET_FILE=$store.secret
# The file goes when this script ends, also after an error.
trap 'rm -f "$VAPLAN_SECRET_FILE"' EXIT
(umask 077 && openssl rand -hex 32 > "$VAPLAN_SECRET_FILE")
export VAPLAN_HOSTS VAPLAN_SECRET_FILE
# The program reads SLURM_PROCID.
export VAPLAN_PROCESS=slurm VAPLAN_WORKERS=$SLURM_CPUS_PER_TASK

srun vaplan label --store "$store" --annotations "$data/annotations" \
    --visual "$data/clip" --visual-text "$data/clip_text.npy" \
    --audio "$data/clap" --audio-text "$data/clap_text.npy"
