// Asks the server in GITHUB_API_URL with GitHub's own client, whose module CLIENT names, and prints what it sees.
import { createRequire } from "node:module";

const { getOctokit } = createRequire(import.meta.url)(process.env.CLIENT);
const [owner, repo] = process.env.GITHUB_REPOSITORY.split("/");
const headers = { "X-GitHub-Api-Version": "2022-11-28" };
const octokit = getOctokit(process.env.NIX_MATRIX_GITHUB_TOKEN, { baseUrl: process.env.GITHUB_API_URL });
const { rest } = octokit;
const here = { owner, repo, headers };
const status = (promise) => promise.then((answer) => answer.status, (error) => error.status);

const caches = await octokit.paginate(rest.actions.getActionsCacheList, { ...here, key: "a-", per_page: 100 });
const oldest = await rest.actions.getActionsCacheList({ ...here, sort: "created_at", direction: "asc", per_page: 1 });
const created = await rest.issues.createComment({ ...here, issue_number: 7, body: "created" });
const comment_id = created.data.id;
const updated = await rest.issues.updateComment({ ...here, comment_id, body: "updated" });
const comments = await octokit.paginate(rest.issues.listComments, { ...here, issue_number: 7 });
const { data: repository } = await rest.repos.get(here);

console.log(JSON.stringify({
  caches: caches.length,
  oldest: oldest.data.actions_caches[0].key,
  total: oldest.data.total_count,
  created: created.status,
  updated: updated.data.body,
  comments: comments.map((comment) => `${comment.user.login} ${comment.body}`),
  branch: repository.default_branch,
  user: await status(rest.users.getAuthenticated({ headers })),
  removed: await status(rest.actions.deleteActionsCacheById({ ...here, cache_id: caches[0].id })),
  again: await status(rest.actions.deleteActionsCacheById({ ...here, cache_id: caches[0].id })),
  unknown: await status(rest.issues.listComments({ ...here, issue_number: 8 })),
  unversioned: await status(rest.repos.get({ owner, repo })),
}));
