"""Words that name sounds in subtitles, in the languages of Whisper's training data.

Data for `app/decoding/markers.py`, which searches for them between brackets only. `laugh*` matches
every word with this beginning, `*musik*` every word that contains it; all others match themselves.
The table need not be complete: a marker that is a whole segment needs no known word.
"""

from __future__ import annotations

import unicodedata

_TABLE = {
    "en": """music* song songs singing sings applau* clap clapping claps cheer* laugh* chuckl*
        giggl* snicker* cough* sneez* sniff* sigh* gasp* groan* moan* grunt* sob sobs sobbing crying
        cries
        weeps weeping scream* shout* yell* whisper* mumbl* murmur* mutter* humming hums whistl*
        breath breathing breathes exhal* inhal* snor* yawn* throat noise* sound* static silence
        silent pause blank inaudible indistinct* unintelligible crosstalk chatter* speaking speaks
        foreign playback playing plays beep* buzz* ringing rings click* clack* clank* clang*
        clatter* knock* slam* creak* squeak* squeal* thud* thump* bang bangs banging boom booms
        booming explosion* gunshot* gunfire siren* alarm* chime* chiming footsteps bark barks
        barking meow* chirp* growl* howl* roar* rumbl* thunder* splash* typing instrumental
        drumroll jingle* vocaliz* vocalis* beatbox* whoosh* swoosh* swish* crackl* rustl* sizzl*""",
    "de": """*musik* *applaus* *beifall* *gelächter* lachen lacht *lachend* husten hustet räusper*
        seufz* stöhn* schrei schreie schreien schreit *flüster* *geräusch* stille *rauschen*
        klatsch* jubel jubelt *klingel* klopf* piep* gesang singt singen unverständlich weint
        weinen schluchz* niest pfeift pfeifen pfiff* donner* hupt hupen bellt bellen schnarch*
        *zwitscher* schuss schüsse*""",
    "fr": """musique* applaudi* rires rire chanson* chant chante chants toux tousse* soupir* silence
        bruit* cris crie cri sonnerie* siffle* murmure* chuchot* sanglot* pleurs pleure gémi*
        générique acclamation* ronfle* éternue* cloche* klaxon* aboie*""",
    "es": """música* aplauso* risa risas ríe canción canta cantan tose tos suspir* silencio ruido*
        grito gritos grita gritan inaudible* sonido* silbid* murmullo* susurr* llanto llora*
        gemid* ovación campana* ladrido* disparo*""",
    "it": """musica* applaus* risata risate canzone canta tosse tossisce sospir* silenzio rumore
        rumori urla incomprensibile suono suoni fischi* sussurr* pianto campane campanello""",
    "pt": """música* aplauso* risos risada* tosse suspir* silêncio ruído* barulho* grito gritos
        inaudível som sons assobi* sussurr* choro sino sinos palmas gargalhada*""",
    "ca": "música* aplaudiment* rialles riu tos silenci soroll*",
    "gl": "música* aplausos risas tose silencio ruído*",
    "nl": """*muziek* *applaus* *gelach* lacht lachen hoest* zucht* stilte *geluid* gejuich
        schreeuw* fluister* onverstaanbaar zingt gezang""",
    "sv": "*musik* *applåd* *skratt* hostar hostning suckar suck tystnad ljud skrik* sång viskar",
    "da": "*musik* bifald *klapsalve* latter griner hoster sukker stilhed støj",
    "no": "*musikk* *applaus* latter ler hoster sukker stillhet støy",
    "is": "tónlist* lófatak* hlátur*",
    "fi": "*musiik* aplodi* naur* yskä* yskii huokaus huokaa hiljaisuus laulu* suosionosoit*",
    "et": "muusika* aplaus* naer naerab köha* vaikus",
    "lv": "mūzika* aplaus* smiekl* klepo",
    "lt": "muzika* plojim* juok* kosul*",
    "pl": """muzyka* oklaski brawa śmiech* śmieje kaszel kaszle westchn* cisza hałas* krzyk* dźwięk*
        śpiew* płacz* szept* niezrozumia* dzwon*""",
    "cs": "*hudba* *hudební* potlesk* smích smějí směje kašel kašle ticho hluk křik zpěv povzdech*",
    "sk": "*hudba* potlesk* smiech kašeľ ticho hluk spev",
    "sl": "glasba* aplavz* smeh",
    "hr": "glazba* muzika* pljesak aplauz* smijeh smije smeh kašalj tišina buka",
    "hu": "*zene* taps nevet* köhög* sóhaj* csend zaj kiált* ének*",
    "ro": "muzic* aplauze* râs râsete râde tuse* tușe* oftează oftat liniște zgomot*",
    "tr": "müzi* alkış* gülme* gülüş* gülüyor kahkaha* öksür* sessizlik gürültü* çığlık*",
    "az": "musiqi* alqış* gülüş*",
    "sq": "muzik* duartrok*",
    "eu": "musika* txalo*",
    "el": "μουσικ* χειροκρότημα* γέλι* γελάει βήχ* αναστεναγμ* σιωπή θόρυβος",
    "ru": """музык* аплодисмент* смех смеётся смеются кашель кашля* вздох* вздыха* тишина шум крик
        крики кричит песня поёт поют плач плачет шёпот неразборчиво звук звуки звон звонок стук
        свист* выстрел*""",
    "uk": "музик* оплеск* сміх сміється кашель кашля* зітх* тиша шум крик спів",
    "bg": "музик* аплодисмент* ръкопляск* смях кашл* тишина шум",
    "sr": "музик* аплауз* смех смеје кашаљ тишина",
    "ar": "*موسيق* *تصفيق* *ضحك* سعال تنهد صمت ضوضاء صراخ غناء",
    "fa": "*موسیق* *تشویق* *خنده* سرفه سکوت",
    "ur": "*موسیق* تالیاں ہنسی قہقہ*",
    "he": "*מוזיקה* *מוסיקה* כפיים צחוק שיעול אנחה שקט רעש",
    "hi": "*संगीत* ताली तालियाँ तालियां हँसी हंसी खांसी शोर",
    "bn": "*সংগীত* *সঙ্গীত* হাততালি হাসি",
    "ta": "*இசை* கைதட்ட* சிரிப்ப*",
    "te": "*సంగీతం* చప్పట్లు నవ్వు*",
    "vi": "nhạc cười tiếng vỗ",
    "id": "*musik* tepuk tertawa ketawa batuk bunyi suara",
    "ms": "muzik* tepukan ketawa",
    "tl": "musika* palakpak* tawanan",
    "sw": "muziki makofi kicheko",
    "cy": "cerddoriaeth chwerthin",
    "ja": """*音楽* *拍手* *笑* *歓声* *咳* *ため息* *沈黙* *無音* *静寂* *雑音* *叫* *悲鳴* *歌*
        *泣* *鐘* *ベル* *チャイム* *ノイズ* *BGM* *音*""",
    "zh": """*音乐* *音樂* *掌声* *掌聲* *鼓掌* *笑* *咳* *叹息* *嘆息* *沉默* *无声* *無聲* *静音*
        *靜音* *噪音* *尖叫* *歌* *哭* *铃声* *鈴聲* *欢呼* *歡呼* *喝彩* *音效*""",
    "ko": "*음악* *박수* *웃음* *기침* *한숨* *침묵* *소음* *비명* *노래* *울음* *환호* *소리*",
    "th": "*ดนตรี* *เพลง* *เสียง* *ปรบมือ* *หัวเราะ*",
}

_CLAUSE_WORDS = """
    the i you he she we they it my your his her our their this that these those is are was were am
    be been do does did has have had will would can could should not who which what when where
    why how
    because if but so too
    ich du er sie es wir ihr ist sind war waren bin hat habe haben nicht kein mein dein dass weil
    wenn aber auch wie
    je tu il elle nous vous ils elles ce est sont était ne que qui mais mon ma mes si
    yo ella nosotros ellos está era pero mi su como muy
    io lui lei noi voi sono che non ma mio
    eu você ele ela são não mas meu se isso
    ik jij hij zij wij zijn niet dat maar mijn
    я ты он она мы вы они это не что но как был была
"""


def folded(text: str) -> str:
    """Return `text` in lower case without accents; replace all but letters and digits by spaces."""
    parts = unicodedata.normalize("NFKD", text.casefold()).replace("\u0131", "i")
    return "".join(
        ""
        if "\u0300" <= part <= "\u036f"
        else part
        if unicodedata.category(part)[0] in "LMN"
        else " "
        for part in parts
    )


_ENTRIES = [entry for words in _TABLE.values() for entry in words.split()]
_WHOLE = frozenset(folded(entry) for entry in _ENTRIES if "*" not in entry)
_BEGINNINGS = tuple(folded(entry[:-1]) for entry in _ENTRIES if entry.find("*") > 0)
_PARTS = tuple(folded(entry[1:-1]) for entry in _ENTRIES if entry.startswith("*"))
_CLAUSE = frozenset(folded(word) for word in _CLAUSE_WORDS.split())


def names_sound(word: str) -> bool:
    """Return whether a folded word names a sound in any of the languages. The window's own language
    is not used, because its detection may be wrong."""
    return word in _WHOLE or word.startswith(_BEGINNINGS) or any(part in word for part in _PARTS)


def makes_clause(word: str) -> bool:
    """Return whether a folded word is a pronoun, an auxiliary or a conjunction of one of eight
    languages. Captions of sounds rarely have one, and bracketed speech mostly has one."""
    return word in _CLAUSE
