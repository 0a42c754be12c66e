# shellcheck shell=bash
# Shared by the scripts of this directory: the names, and the commands for the queued resource.

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

need \
  PROJECT 'the Google Cloud project' \
  ZONE 'where the TPU is, for example us-west4-a' \
  TPU_NAME 'a name for the queued resource, for example omnijax'

# queued VERB ARGUMENT...: runs gcloud on the queued resources of this zone.
queued() {
  run gcloud compute tpus queued-resources "$@" --project "$PROJECT" --zone "$ZONE"
}

# Prints the state of the queued resource: ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, …; NONE if it doesn't exist, UNKNOWN if
# gcloud fails. (cloud.google.com/tpu/docs/queued-resources has the list.)
state() {
  local listed
  if ! listed=$(gcloud compute tpus queued-resources list --project "$PROJECT" --zone "$ZONE" \
    --filter "name~/$TPU_NAME\$" --format 'value(state.state)'); then
    listed=UNKNOWN
  fi
  printf '%s\n' "${listed:-NONE}"
}

# wait_until_active: returns when the machines are ready, or with status 1 if they never will be.
wait_until_active() {
  local now='' before=''
  if dry; then
    echo '# until this says ACTIVE:'
    queued describe "$TPU_NAME" --format 'value(state.state)'
    return
  fi
  while :; do
    now=$(state)
    if [[ "$now" != "$before" ]]; then
      say "$TPU_NAME: $now"
      before=$now
    fi
    case "$now" in
      ACTIVE) return 0 ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING | NONE) return 1 ;;
    esac
    sleep "${POLL_SECONDS:-30}"
  done
}

# on_all COMMAND: runs a line of shell on every worker of every slice.
on_all() {
  queued ssh "$TPU_NAME" --node all --worker all --command "$1"
}
