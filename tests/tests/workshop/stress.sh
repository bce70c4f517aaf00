# What does much of one thing at once, and checks itself.
for stressor in $STRESSORS; do
    stress-ng --quiet --temp-path . --verify --oomable --hdd-bytes 4M --seek-size 4M --fallocate-bytes 16M \
        "--$stressor" 2 "--$stressor-ops" "${STRESS_OPERATIONS:-150}" --timeout 1 ||
        { echo "stress-ng --$stressor ended with $?"; exit 1; }
done
[ -z "$(ls -A)" ] || { echo "left behind: $(ls -A)"; exit 1; }
