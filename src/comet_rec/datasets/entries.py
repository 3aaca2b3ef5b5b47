"""Descriptions of the named data sets: sources, terms of use, columns and published counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Wheel:
    """Python wheel with the same data, used if the official source cannot be reached.

    Parameters
    ----------
    requirement : str
        Name and version of the wheel, as pip takes it.
    members : dict
        Path inside the wheel → digest that the file must have.
    interactions_file, columns, titles_file
        As in `Entry`, for the files of the wheel.
    """

    requirement: str
    members: Mapping[str, str]
    interactions_file: str
    columns: Mapping[str, str]
    titles_file: str | None = None


@dataclass(frozen=True)
class Entry:
    """Description of one named data set: sources, terms of use, columns and published counts.

    Parameters
    ----------
    name : str
        Name that the user passes to `load`.
    title : str
        One line that describes the data.
    url : str
        Official source: a zip archive if `members` is not empty, else the log itself.
    interactions_file : str
        File name of the log.
    licence : str
        Short terms of use, with the address of the full text.
    citation : str
        Papers to cite.
    digest : str or None
        ``md5:…`` or ``sha256:…`` as the source publishes it. If the source publishes none, the
        SHA-256 of the first download is recorded, and later downloads must match it.
    members : tuple of str
        Paths inside the archive to unpack.
    titles_file : str or None
        File name of the item titles; None if there are none.
    users, items, interactions : int or None
        Published counts after the default filter; None if there are none.
    min_user_interactions : int
        Default filter: users with fewer interactions are dropped.
    columns : dict
        Arguments of `readers.read` that name the columns.
    wheel : Wheel or None
        Second source, if there is one.
    """

    name: str
    title: str
    url: str
    interactions_file: str
    licence: str
    citation: str
    digest: str | None = None
    members: tuple[str, ...] = ()
    titles_file: str | None = None
    users: int | None = None
    items: int | None = None
    interactions: int | None = None
    min_user_interactions: int = 0
    columns: Mapping[str, str] = field(default_factory=dict)
    wheel: Wheel | None = None


_HEADERLESS = {"user": "1", "item": "2", "rating": "3", "time": "4"}
_MOVIELENS_TERMS = (
    "For research, with acknowledgement; no redistribution and no commercial use without the "
    "permission of GroupLens, University of Minnesota. "
    "Full text: https://files.grouplens.org/datasets/movielens/{}-README.txt"
)
_MOVIELENS_CITATION = (
    "F. M. Harper, J. A. Konstan. The MovieLens Datasets: History and Context. ACM Transactions "
    "on Interactive Intelligent Systems 5(4), 2015. https://doi.org/10.1145/2827872"
)
_AMAZON_TERMS = (
    "Collected by J. McAuley, UC San Diego, who asks users to cite one or both of the papers "
    "below and states no licence; the reviews are Amazon's. "
    "Full text: https://jmcauley.ucsd.edu/data/amazon/"
)
_AMAZON_CITATION = (
    "R. He, J. McAuley. Ups and Downs: Modeling the Visual Evolution of Fashion Trends with "
    "One-Class Collaborative Filtering. WWW 2016. / J. McAuley, C. Targett, Q. Shi, "
    "A. van den Hengel. Image-Based Recommendations on Styles and Substitutes. SIGIR 2015."
)


def _amazon(name: str, title: str, file: str, counts: tuple[int, int, int]) -> Entry:
    """Describe one category of the 2014 Amazon ratings, with the filter and counts of Table I."""
    return Entry(
        name=name,
        title=f"Amazon {title}: ratings up to 2014, users with 10 or more",
        url="https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/" + file,
        interactions_file=file,
        licence=_AMAZON_TERMS,
        citation=_AMAZON_CITATION,
        users=counts[0],
        items=counts[1],
        interactions=counts[2],
        min_user_interactions=10,
        columns=_HEADERLESS,
    )


_INSIDE_RECBOLE = "recbole/dataset_example/ml-100k/ml-100k"

ENTRIES = (
    Entry(
        name="ml-100k",
        title="MovieLens 100K: ratings of films, 1997-1998",
        url="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        digest="md5:0e33842e24a9c977be4e0107933c0723",
        members=("ml-100k/u.data", "ml-100k/u.item", "ml-100k/README"),
        interactions_file="u.data",
        titles_file="u.item",
        licence=_MOVIELENS_TERMS.format("ml-100k"),
        citation=_MOVIELENS_CITATION,
        users=943,
        items=1_682,
        interactions=100_000,
        columns=_HEADERLESS,
        wheel=Wheel(
            requirement="recbole==1.2.1",
            members={
                f"{_INSIDE_RECBOLE}.inter": "sha256:"
                "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
                f"{_INSIDE_RECBOLE}.item": "sha256:"
                "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            },
            interactions_file="ml-100k.inter",
            titles_file="ml-100k.item",
            columns={
                "user": "user_id:token",
                "item": "item_id:token",
                "rating": "rating:float",
                "time": "timestamp:float",
            },
        ),
    ),
    Entry(
        name="ml-1m",
        title="MovieLens 1M: ratings of films, 2000-2003",
        url="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        digest="md5:c4d9eecfca2ab87c1945afe126590906",
        members=("ml-1m/ratings.dat", "ml-1m/movies.dat", "ml-1m/README"),
        interactions_file="ratings.dat",
        titles_file="movies.dat",
        licence=_MOVIELENS_TERMS.format("ml-1m"),
        citation=_MOVIELENS_CITATION,
        users=6_040,
        items=3_706,
        interactions=1_000_209,
        columns=_HEADERLESS,
    ),
    _amazon(
        "amazon-movies", "Movies and TV", "ratings_Movies_and_TV.csv", (40_928, 51_509, 1_163_413)
    ),
    _amazon("amazon-cds", "CDs and Vinyl", "ratings_CDs_and_Vinyl.csv", (26_876, 66_820, 770_188)),
)
"""All named data sets. A new data set is one more entry."""
