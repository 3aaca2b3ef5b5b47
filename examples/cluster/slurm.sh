#!/bin/bash
# Train on several machines with Slurm: `sbatch examples/cluster/slurm.sh`.
# One task a machine; torchrun starts a process for each of its cores that shall compute. The log
# and the run lie on a disk that all machines see.
#SBATCH --job-name=comet-rec
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
set -euo pipefail

LOG=${LOG:-/shared/log}
RUN=${RUN:-/shared/runs/shop}
PROCESSES=${PROCESSES:-8} # a machine; each uses CPUS / PROCESSES threads
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / PROCESSES))

# The first machine of the job is where the processes meet.
FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# At SIGTERM, which Slurm sends five minutes before the end and when it needs the machines, the
# training saves its state. torchrun leaves it four minutes for that. When the job starts again, it
# goes on from there: by --requeue after it lost its machines, by `scontrol requeue JOB` after its
# time was over.
[ -e "$RUN/manifest.json" ] || srun torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$PROCESSES" --max-restarts 3 \
  --shutdown-timeout 240 \
  --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$FIRST:29500" \
  -m comet_rec train "$LOG" --out "$RUN" --set train.table_optimizer=sparse_adam

# Lists of all users, a part in each process. A part that is complete is left as it is.
srun torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$PROCESSES" \
  --rdzv-id "$SLURM_JOB_ID-lists" --rdzv-backend c10d --rdzv-endpoint "$FIRST:29501" \
  -m comet_rec recommend "$RUN" --all-users --out "$RUN-lists"
