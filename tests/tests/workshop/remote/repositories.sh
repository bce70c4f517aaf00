# A repository is made, grows, is packed, checked and cloned.
export HOME=$ASIDE GIT_CONFIG_NOSYSTEM=1
git config --global user.name test; git config --global user.email test@localhost
git config --global init.defaultBranch main; git config --global gc.auto 0; git config --global safe.directory '*'
git init -q work; cd work
for round in 1 2 3; do
    mkdir -p "d$round"; for number in $(seq 1 5); do echo "$round $number $RANDOM" >"d$round/f$number"; done
    head -c 100000 /dev/urandom >"blob$round"
    git add -A; git commit -qm "round $round"
done
git checkout -qb side HEAD~1; echo side >side; git add side; git commit -qm side; git checkout -q main; git merge -q side -m merge
echo change >>d1/f2; git stash -q; git stash pop -q; git checkout -q d1/f2
git gc -q --prune=now; git fsck --full --strict 2>&1 | grep -v '^dangling\|notice' | grep . && exit 1
[ -z "$(git status --porcelain)" ]
cd ..
git clone -q --no-local work clone; git -C clone fsck --full
[ "$(git -C clone rev-parse HEAD)" = "$(git -C work rev-parse HEAD)" ]
