"""Names of people and places by region of the world, to see whether a tagger knows those of one region alone.

Common given names, family names and cities, written down for this purpose. They are in Latin letters and stand for
nobody; each list is short, and a region has many more.
"""

from __future__ import annotations

from itertools import product

PERSON_TYPES = frozenset({"PER", "PERSON"})
PLACE_TYPES = frozenset({"LOC", "LOCATION", "GPE"})
"""Entity types, in capitals, whose mentions the lists can stand for."""

_NAMES: dict[str, tuple[str, str, str]] = {
    "West Africa": (
        "Chinedu Ngozi Kwame Akosua Amadou Fatoumata Oluwaseun Adaeze Babacar Efua",
        "Okonkwo Adeyemi Boateng Diallo Ndiaye Owusu Traore Eze Mensah Balogun",
        "Ibadan Kumasi Bamako Abidjan Conakry Enugu Niamey Lome Freetown Touba",
    ),
    "East Africa": (
        "Wanjiru Otieno Tsegaye Mulugeta Achieng Kiprono Neema Juma Abdirahman Selam",
        "Kamau Odhiambo Tesfaye Mwangi Bekele Mugisha Nyong'o Hassan Kipchoge Nakato",
        "Mombasa Kampala Dodoma Asmara Kisumu Hawassa Mwanza Gitega Eldoret Hargeisa",
    ),
    "Middle East and North Africa": (
        "Khalid Fatima Mustafa Zeinab Reza Maryam Yasmin Tariq Hicham Samira",
        "Benali Al-Masri Hosseini Khoury Mansouri El-Sayed Bouazizi Rahimi Nasser Saadi",
        "Fez Mosul Isfahan Aleppo Sfax Oran Basra Jeddah Mashhad Benghazi",
    ),
    "South Asia": (
        "Aarav Lakshmi Vikram Sunita Imran Ayesha Arjun Deepika Rahul Nusrat",
        "Patel Chaudhary Iyer Khan Reddy Banerjee Perera Gupta Siddiqui Thapa",
        "Lucknow Chittagong Karachi Nagpur Kandy Pokhara Faisalabad Kochi Patna Sylhet",
    ),
    "East Asia": (
        "Wei Xiaoming Haruto Yuki Minjun Jihye Takeshi Meiling Seojun Kaito",
        "Zhang Liu Watanabe Suzuki Kim Choi Huang Yamamoto Jeong Chen",
        "Chengdu Busan Nagoya Wuhan Sapporo Daegu Kaohsiung Xiamen Fukuoka Incheon",
    ),
    "Southeast Asia": (
        "Nguyet Somchai Putri Budi Thanh Maricel Siti Aung Rizal Kanya",
        "Nguyen Santoso Wibowo Srisai Tran Dela-Cruz Suharto Pham Htun Rahman",
        "Surabaya Cebu Danang Medan Mandalay Davao Penang Vientiane Bandung Hue",
    ),
    "Latin America": (
        "Guadalupe Thiago Ximena Joaquin Valentina Mateus Itzel Facundo Yesenia Caio",
        "Gonzalez Ferreira Quispe Mamani Rodrigues Herrera Huaman Souza Morales Castillo",
        "Guayaquil Recife Cochabamba Medellin Monterrey Rosario Fortaleza Arequipa Managua Cordoba",
    ),
    "Eastern Europe": (
        "Oksana Dmytro Zsofia Wojciech Milica Bogdan Agnieszka Andrei Katarzyna Vesna",
        "Kovalenko Nowak Horvath Ionescu Jovanovic Wisniewski Dimitrov Szabo Shevchenko Novotny",
        "Lviv Krakow Debrecen Brno Plovdiv Timisoara Novi-Sad Gdansk Kharkiv Varna",
    ),
    "Western Europe and North America": (
        "Emily Thomas Pierre Julia Andrew Claire Stefan Hannah Matthew Sophie",
        "Smith Dubois Mueller Johnson Janssen Williams Rossi Martin Taylor Schneider",
        "Manchester Lyon Hamburg Denver Antwerp Seattle Turin Montreal Birmingham Boston",
    ),
}

REGIONS = tuple(_NAMES)


def names_of(region: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Mentions of a region, as words, by entity type: given names with family names, and places.

    Examples:
        >>> ("Wei", "Zhang") in names_of("East Asia")["PER"]
        True
    """
    given, family, places = (part.split() for part in _NAMES[region])
    persons = tuple(product(given, family))
    towns = tuple((place,) for place in places)
    return {**dict.fromkeys(PERSON_TYPES, persons), **dict.fromkeys(PLACE_TYPES, towns)}
