# A repository's life: every step takes locks and renames files over others.
set -euo pipefail
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
git config --global init.defaultBranch main
git config --global advice.detachedHead false
mkdir world
git init -q --bare remote.git
git clone -q remote.git world/work 2>/dev/null
cd world/work
mkdir -p src/.sshx config && seq 200 >src/numbers && echo 'A=1' >config/.env.example && echo x >src/.sshx/y && echo '#!/bin/sh' >src/run && chmod +x src/run
printf '.env\n' >.gitignore
git add . && git commit -qm first && git push -q -u origin main
git switch -qc topic && sed -i s/100/hundred/ src/numbers && git mv config settings && git commit -qam topic
git switch -q main && echo main >note && git add note && git commit -qm main
git rebase -q main topic && git switch -q main && git merge -q --no-ff -m merged topic
echo dirty >>note && git stash -q && git stash pop -q && git checkout -q note
git tag -am tagged v1 && git push -q origin main topic v1
git worktree add -q ../tree topic && (cd ../tree && git log -n 2 --format=%s)
git -C ../tree cherry-pick -n main >/dev/null 2>&1 || git -C ../tree reset -q --hard
git gc -q --prune=now && git repack -qad && git fsck --strict
git clone -q "file://$OLDPWD/remote.git" ../second && git -C ../second log --format='%H %s' && git -C ../second describe
cd .. && git -C second pull -q --rebase && git -C second submodule status
git -C work archive v1 | tar t
git -C work worktree remove --force ../tree
rm -rf work/.git second/.git
