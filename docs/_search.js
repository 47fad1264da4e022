// How the search ranks what it finds; Sphinx has these numbers by default.
// The names of `compat` are those of the losses themselves, which are meant.
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
  score: ([docname, title, anchor, description, score]) => {
    if (docname.includes("jaxloss.compat.")) return score - 40;
    if (/api\/jaxloss\.(kernels|parallel|losses|stable)\b/.test(docname)) return score - 10;
    return score;
  },
};
