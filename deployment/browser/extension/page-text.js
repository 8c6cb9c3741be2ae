/**
 * What the model reads of a page: the words of its address, then its title, as in "example recipes lentil soup: Lentil soup |
 * Example". Both are there without looking into the page, for which the extension would need access to every site. Null for
 * what is no page of a site.
 */
export function pageText(address, title) {
  if (!/^https?:/.test(address ?? "")) return null;
  const { hostname, pathname } = new URL(address);
  const site = /^[\d.]+$|^\[/.test(hostname) ? "" : hostname.replace(/^www\./, "").replace(/\.[^.]+$/, "");
  const words = `${site} ${decoded(pathname).replace(/\.\w{2,5}$/, "")}`.split(/[^\p{L}\p{N}]+/u)
    .filter((word) => word && !/^\d+$/.test(word)); // numbers in an address are dates and keys
  return [words.join(" "), title].filter(Boolean).join(": ");
}

function decoded(path) {
  try {
    return decodeURIComponent(path);
  } catch {
    return path; // a lone % is allowed in an address
  }
}
