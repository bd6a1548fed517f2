// Renews the live part of the page every five seconds, unless somebody is using it or does not see it.
"use strict";

const busy = (live) =>
  document.hidden || live.contains(document.activeElement) || !document.getSelection().isCollapsed;

const renew = async () => {
  const live = document.getElementById("live");
  if (busy(live)) return;
  const answer = await fetch(location.href);
  if (answer.redirected) return location.reload(); // the session has ended
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!busy(live)) live.replaceWith(page.getElementById("live"));
};

setInterval(() => renew().catch(() => {}), 5000);
